// Health checks of real containers: a gate on the disk says whether they are well.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  emptyHealthCheck,
  emptyMount,
  type HealthCheck,
  type Mount,
  type Service,
  type ServiceSpec,
  type Task,
} from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { createService, serviceSpec, tasksOf, untilRunning } from '../support/services.ts';

const image = 'localhost/bb:1';
const checked = 'localhost/checked:1';

const QUICK: HealthCheck = {
  ...emptyHealthCheck,
  test: ['CMD-SHELL', 'test -f /gate/open || { echo gate is shut; exit 3; }'],
  intervalMs: 100,
  timeoutMs: 5_000,
  retries: 2,
  startPeriodMs: 60_000,
  startIntervalMs: 50,
};

/** A directory that containers see: they are well as long as it is open. */
class Gate {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  get mount(): Mount {
    return { ...emptyMount, type: 'bind', source: this.#directory, target: '/gate', readOnly: true };
  }

  open(): Promise<void> {
    return writeFile(path.join(this.#directory, 'open'), '');
  }

  shut(): Promise<void> {
    return rm(path.join(this.#directory, 'open'), { force: true });
  }
}

describe('health checks', { skip: whyNoRealNode() ?? false }, () => {
  let node: RealNode;
  let directory: string;

  before(async () => {
    directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-gate-'));
    node = await RealNode.start();
    await node.init();
    await node.importImage((await buildDemoImage({ name: image })).archive);
    const config = { Healthcheck: { Test: ['CMD', 'false'], Interval: 5e7, Retries: 2 } };
    await node.importImage((await buildDemoImage({ name: checked, config })).archive);
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  const aGate = async (name: string): Promise<Gate> => {
    const place = path.join(directory, name);
    await mkdir(place);
    return new Gate(place);
  };
  const gated = (gate: Gate, healthCheck: HealthCheck = QUICK) => ({
    image,
    container: { healthCheck, mounts: [gate.mount], stopGracePeriodMs: 1_000 },
  });
  const remove = async (...names: readonly string[]) => {
    for (const name of names) await node.control.removeService({ service: name });
    await node.untilEmpty();
  };
  const untilTask = (service: Service, isWanted: (task: Task) => boolean): Promise<Task> =>
    eventually(async () => {
      const tasks = await tasksOf(node, service.id);
      const found = tasks.find(isWanted);
      if (found !== undefined) return found;
      throw new Error(JSON.stringify(tasks.map(({ status }) => status)));
    }, 30_000);
  const isWaiting = ({ status }: Task) =>
    status.state === 'starting' && status.message === 'waiting for the health check';
  const metric = async (name: string): Promise<number> => {
    const { metricsAddress } = await node.node.info({});
    const text = await (await fetch(`http://${metricsAddress}/metrics`)).text();
    return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1]);
  };

  test('a request and a connection to a port need nothing in the image', async () => {
    const gate = await aGate('ports');
    const served = (test: readonly string[]) => {
      const { container, ...rest } = gated(gate, { ...QUICK, test });
      return { ...rest, container: { ...container, command: ['httpd', '-f', '-p', '8080', '-h', '/gate'] } };
    };
    const asked = await createService(node, 'asked', served(['HTTP', '8080/open']));
    const shut = await createService(node, 'shut', served(['TCP', '8081']));
    const connected = await createService(node, 'connected', served(['TCP', '8080']));
    await untilRunning(node, connected.id, 1);
    await untilTask(asked, isWaiting);
    await untilTask(shut, isWaiting);
    await gate.open();
    const [task] = await untilRunning(node, asked.id, 1);
    await gate.shut();
    const failed = await untilTask(asked, ({ id, status }) => id === task?.id && status.state === 'failed');
    assert.match(failed.status.error, /2 times in a row: GET \/open on port 8080: status 404$/);
    await remove('asked', 'shut', 'connected');
  });

  test('a task runs from its first success on, and is replaced when its checks fail', async () => {
    const gate = await aGate('life');
    const service = await createService(node, 'life', gated(gate));
    const task = await untilTask(service, isWaiting);
    await eventually(async () => (await metric('engine_daemon_health_checks_failed_total')) > 3);
    assert.ok((await tasksOf(node, service.id)).every(({ status }) => status.state !== 'running'));

    await gate.open();
    const [running] = await untilRunning(node, service.id, 1);
    assert.equal(running?.id, task.id);

    await gate.shut();
    const failed = await untilTask(service, ({ id, status }) => id === task.id && status.state === 'failed');
    assert.equal(
      failed.status.error,
      'unhealthy container: the health check failed 2 times in a row: exit code 3: gate is shut',
    );
    const { stdout } = await node.cli('service', 'ps', '--no-trunc', 'life');
    assert.match(stdout, /Failed .*unhealthy container: .* exit code 3: gate is shut/);
    await untilTask(service, (other) => other.id !== task.id && isWaiting(other));
    const why = await node.cli('why', 'life');
    assert.match(why.stdout, /exit code 3: gate is shut/);
    assert.match(why.stdout, /tsswarm service logs life/);

    await gate.open();
    await untilRunning(node, service.id, 1);
    await remove('life');
  });

  test('tasks in every stage outlive a killed daemon, and their checks go on', async () => {
    const [open, shut] = [await aGate('open'), await aGate('shut')];
    await open.open();
    const well = await createService(node, 'well', { ...gated(open), replicas: 4 });
    const waiting = await createService(node, 'waiting', { ...gated(shut), replicas: 2 });
    const before = await untilRunning(node, well.id, 4);
    await untilTask(waiting, isWaiting);

    for (let round = 0; round < 3; round++) {
      await node.killDaemon();
      await node.startDaemon();
    }

    const checksBefore = await metric('engine_daemon_health_checks_total');
    await eventually(
      async () => (await metric('engine_daemon_health_checks_total')) > checksBefore + 20,
      20_000,
    );
    const pids = (tasks: readonly Task[]) => tasks.map(({ status }) => status.container?.pid ?? 0).sort();
    assert.deepEqual(pids(await untilRunning(node, well.id, 4)), pids(before));
    assert.ok((await tasksOf(node, waiting.id)).every(isWaiting));
    await shut.open();
    await untilRunning(node, waiting.id, 2);
    await open.shut();
    await eventually(async () => {
      const failed = (await tasksOf(node, well.id)).filter(({ status }) => status.state === 'failed');
      return failed.length >= 4;
    }, 20_000);
    await open.open();
    await untilRunning(node, well.id, 4);
    await remove('well', 'waiting');
    assert.deepEqual(readdirSync(path.join(node.runDir, 'exec')), []);
  });

  test('an update to what never becomes healthy is paused, and what ran goes on', async () => {
    const gate = await aGate('update');
    await gate.open();
    const startFirst = (spec: ServiceSpec) => ({
      ...spec,
      update: { ...spec.update, monitorMs: 200, order: 'start-first' as const },
    });
    const service = await createService(node, 'upd', { ...gated(gate), replicas: 2, change: startFirst });
    const before = await untilRunning(node, service.id, 2);
    const broken = { ...QUICK, test: ['CMD', 'no-such-program'], startPeriodMs: 0 };
    const spec = serviceSpec('upd', { ...gated(gate, broken), replicas: 2, change: startFirst });

    await node.control.updateService({
      serviceId: service.id,
      version: service.specVersion,
      spec,
      rollback: false,
    });

    await eventually(async () => {
      const { updateStatus } = (await node.control.getService({ service: 'upd' })).service;
      return updateStatus?.state === 'paused';
    }, 20_000);
    const failed = await untilTask(service, ({ status }) => status.state === 'failed');
    assert.match(failed.status.error, /^unhealthy container: .*no-such-program.*not found/);
    const left = (await tasksOf(node, service.id)).filter(({ status }) => status.state === 'running');
    assert.deepEqual(left.map(({ id }) => id).sort(), before.map(({ id }) => id).sort());
    await remove('upd');
  });

  test("an image's health check counts, unless the service has its own or wants none", async () => {
    const options = [
      '--detach',
      '--no-resolve-image',
      '--stop-grace-period',
      '0',
      '--restart-condition',
      'none',
    ];
    const create = async (name: string, ...flags: string[]) => {
      const { code, stderr } = await node.cli(
        ...['service', 'create', '--name', name, ...options, ...flags],
        ...[checked, 'sleep', '1000'],
      );
      assert.equal(code, 0, stderr);
      return (await node.control.getService({ service: name })).service;
    };

    const image = await create('image');
    const own = await create('own', '--health-cmd', 'true', '--health-interval', '100ms');
    const none = await create('none', '--no-healthcheck');

    await untilRunning(node, none.id, 1);
    await untilRunning(node, own.id, 1);
    const { status } = await untilTask(image, (task) => task.status.state === 'failed');
    assert.equal(status.error, 'unhealthy container: the health check failed 2 times in a row: exit code 1');
    await remove('image', 'own', 'none');
  });
});
