// What operators may do with secrets and configs, and what services may ask of them: the handlers on a real store.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { newServiceSpec } from '../../core/defaults.ts';
import {
  emptyFileReference,
  emptyPayloadSpec,
  type FileReference,
  type Secret,
  type Service,
} from '../../core/generated/objects.ts';
import { type PayloadKind, targetOf } from '../../core/validate-payload.ts';
import { aNode, aTask } from '../../test/support/builders.ts';
import { MemoryLog } from '../../test/support/memory-log.ts';
import { Store } from '../store/store.ts';
import { explain } from './explain.ts';
import { createPayload, getConfig, getSecret, removePayload, updatePayload } from './payload-api.ts';
import { createService, updateService } from './service-api.ts';
import { newTurns } from './turns.ts';

class World {
  readonly log = new MemoryLog();
  readonly clock = new FakeClock();
  readonly store = new Store(this.log, this.clock);
  readonly options = { store: this.store, clock: this.clock, randomBytes, takeTurn: newTurns() };

  static async create(): Promise<World> {
    const world = new World();
    await world.store.open();
    return world;
  }

  put(kind: PayloadKind, name: string, text = 'text', templateDriver = ''): Promise<Secret> {
    const spec = { ...emptyPayloadSpec, name, templateDriver };
    return createPayload(this.options, kind, { spec, data: Buffer.from(text) });
  }

  renew(kind: PayloadKind, { id, spec }: Secret, text?: string, change = {}): Promise<Secret> {
    const version = this.store.view[kind].get(id)?.meta.version ?? 0;
    const data = text === undefined ? {} : { data: Buffer.from(text) };
    return updatePayload(this.options, kind, { id, version, spec: { ...spec, ...change }, ...data });
  }

  async service(name: string, secrets: FileReference[], configs: FileReference[] = []): Promise<Service> {
    const spec = newServiceSpec(name, { image: 'busybox', secrets, configs });
    return (await createService(this.options, { spec })).service;
  }
}

const reference = (sourceId: string, change: Partial<FileReference> = {}): FileReference => ({
  ...emptyFileReference,
  sourceId,
  target: sourceId,
  ...change,
});

test('a secret has versions, and no answer has their content', async () => {
  const world = await World.create();
  const secret = await world.put('secret', 'db', 'hunter2-first');
  world.clock.advance(5_000);
  const renewed = await world.renew('secret', secret, 'hunter2-second');
  assert.equal(renewed.latestVersion, 2);
  await world.service('web', [reference('db', { version: 1 })]);

  const found = getSecret(world.store.view, 'db');
  assert.deepEqual(
    found.versions.map(({ version, bytes, pinnedBy }) => [version, bytes, pinnedBy]),
    [
      [1, 13, ['web']],
      [2, 14, []],
    ],
  );
  assert.equal((found.versions[1]?.createdAtMs ?? 0) - (found.versions[0]?.createdAtMs ?? 0), 5_000);
  assert.deepEqual(found.usedBy, ['web']);
  for (const answer of [secret, renewed, found]) assert.ok(!JSON.stringify(answer).includes('hunter2'));
});

test('a config shows its newest content', async () => {
  const world = await World.create();
  const config = await world.put('config', 'conf', 'one');
  await world.renew('config', config, 'two');
  assert.equal(Buffer.from(getConfig(world.store.view, 'conf').data).toString(), 'two');
});

test('labels change without a new version, name and template driver never', async () => {
  const world = await World.create();
  const secret = await world.put('secret', 'db');
  const labelled = await world.renew('secret', secret, undefined, { labels: { a: 'b' } });
  assert.deepEqual([labelled.spec.labels, labelled.latestVersion], [{ a: 'b' }, 1]);
  await assert.rejects(world.renew('secret', secret, 'x', { name: 'other' }), /cannot be renamed to other/);
  await assert.rejects(
    world.renew('secret', secret, 'x', { templateDriver: 'golang' }),
    /template-driver: that of secret db cannot be changed/,
  );
  const late = { id: secret.id, version: secret.meta.version, spec: secret.spec };
  await assert.rejects(updatePayload(world.options, 'secret', late), /update out of sequence/);
});

test('a name is taken once for secrets and once for configs, whatever its case', async () => {
  const world = await World.create();
  await world.put('secret', 'db');
  await world.put('config', 'db');
  await assert.rejects(world.put('secret', 'DB'), /secret DB already exists/);
});

test('what is no template is refused before it is stored, and nothing of it is in the message', async () => {
  const world = await World.create();
  await assert.rejects(world.put('secret', 'made', 'hunter2 {{if}}', 'golang'), (error: Error) => {
    assert.match(error.message, /^template: /);
    return !error.message.includes('hunter2');
  });
  const made = await world.put('secret', 'made', '{{env "A"}}', 'golang');
  await assert.rejects(world.renew('secret', made, '{{env "A"'), /^SwarmError: template: /);
});

test('a service refers by id, and to what is there', async () => {
  const world = await World.create();
  const { id } = await world.put('secret', 'db');
  const service = await world.service('web', [reference('db')]);
  const [stored] = service.spec.task.container.secrets;
  assert.deepEqual([stored?.sourceId, stored?.sourceName], [id, 'db']);
  assert.equal(targetOf('secret', stored as FileReference), '/run/secrets/db');
  await assert.rejects(world.service('other', [reference('nope')]), /secret nope not found/);
  await assert.rejects(world.service('other', [], [reference('db')]), /config db not found/);
  await assert.rejects(
    world.service('other', [reference('db', { version: 2 })]),
    (error: Error & { hint?: string }) => {
      assert.match(error.message, /secret db has no version 2/);
      return error.hint === 'Kept are 1.';
    },
  );
});

test('what a service refers to is not removed', async () => {
  const world = await World.create();
  await world.put('secret', 'db');
  const service = await world.service('web', [reference('db')]);
  await world.service('api', [reference('db')]);
  await assert.rejects(
    removePayload(world.options, 'secret', 'db'),
    /secret 'db' is in use by the following services: api, web/,
  );

  const { container } = service.spec.task;
  const spec = { ...service.spec, task: { ...service.spec.task, container: { ...container, secrets: [] } } };
  await updateService(world.options, { serviceId: service.id, version: 1, spec, rollback: false });
  await assert.rejects(removePayload(world.options, 'secret', 'db'), /following service: api$/);
  await world.store.update((tx) => {
    for (const { id, spec } of tx.view.service.values()) if (spec.name === 'api') tx.delete('service', id);
  });
  await removePayload(world.options, 'secret', 'db');
  assert.deepEqual([world.store.view.secret.size, world.store.view.payload.size], [0, 0]);
});

test('what a failing update goes back to is not removed', async () => {
  const world = await World.create();
  await world.put('secret', 'db');
  const service = await world.service('web', [reference('db')]);
  const { container } = service.spec.task;
  const spec = { ...service.spec, task: { ...service.spec.task, container: { ...container, secrets: [] } } };
  await updateService(world.options, { serviceId: service.id, version: 1, spec, rollback: false });
  const updateStatus = {
    state: 'updating' as const,
    startedAtMs: 0,
    completedAtMs: 0,
    message: '',
    slotsTotal: 1,
  };
  await world.store.update((tx) => {
    const [current] = tx.view.service.values();
    if (current !== undefined) tx.update('service', { ...current, updateStatus });
  });
  await assert.rejects(removePayload(world.options, 'secret', 'db'), /in use by the following service: web/);
});

test('why tells of a task that runs on with an old version', async () => {
  const world = await World.create();
  await world.put('secret', 'db');
  const { id } = await world.service('web', [reference('db')]);
  const error = 'secret db is not up to date in the container: no room';
  const task = aTask(id, { nodeId: 'n1' });
  await world.store.update((tx) => {
    tx.create('node', aNode('n1'));
    tx.create('task', { ...task, status: { ...task.status, state: 'running', error } });
  });
  const { ok, steps } = explain(world.store.view, { target: 'web', kind: '' }, world.clock.nowMs());
  assert.equal(ok, false);
  const step = steps.find(({ text }) => text.includes(error));
  assert.match(step?.remedy ?? '', /tsswarm service update --force web/);
});
