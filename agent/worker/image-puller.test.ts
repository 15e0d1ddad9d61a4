import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode, SwarmError } from '../../core/errors.ts';
import {
  emptyMeta,
  type PullPolicy,
  type RegistryAuth,
  type Revision,
} from '../../core/generated/objects.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { aService } from '../../test/support/cluster-in-process.ts';
import { FakeEngine } from '../../test/support/fake-engine.ts';
import type { PullOptions } from '../engine/engine.ts';
import { ImagePuller } from './image-puller.ts';
import { imagesOf } from './service-images.ts';

setLogLevel('silent');

const DIGEST = `sha256:${'ab'.repeat(32)}`;
const auth: RegistryAuth = { registry: 'docker.io', username: 'me', password: 'pw', identityToken: '' };

class World {
  readonly engine = new FakeEngine();
  readonly pulls: (PullOptions | undefined)[] = [];
  readonly puller: ImagePuller;

  constructor() {
    const { images } = this.engine;
    this.puller = new ImagePuller({
      ...images,
      pull: (reference, options) => {
        this.pulls.push(options);
        return images.pull(reference, options);
      },
    });
  }

  /** How often the registry was asked when the image was missing, then there, and for a new spec. */
  async timesAsked(pullPolicy: PullPolicy, image: string): Promise<number[]> {
    this.engine.registry.add(image);
    const times: number[] = [];
    for (const specVersion of [1, 1, 2]) {
      const before = this.pulls.length;
      await this.puller.ensure(revision(specVersion, { pullPolicy, image }), [image], () => undefined);
      times.push(this.pulls.length - before);
    }
    return times;
  }
}

function revision(specVersion: number, container: { pullPolicy: PullPolicy; image: string }): Revision {
  const spec = aService('s', { container });
  return { id: `s.${specVersion}`, meta: emptyMeta, serviceId: 's', specVersion, spec, registryAuth: true };
}

test('the policy says when the registry is asked', async () => {
  assert.deepEqual(await new World().timesAsked('auto', 'app:1'), [1, 0, 1]);
  assert.deepEqual(await new World().timesAsked('auto', `app:1@${DIGEST}`), [1, 0, 0]);
  assert.deepEqual(await new World().timesAsked('missing', 'app:1'), [1, 0, 0]);
  assert.deepEqual(await new World().timesAsked('always', `app:1@${DIGEST}`), [1, 1, 1]);
});

test('an image that is never pulled has to be there', async () => {
  const world = new World();
  const never = revision(1, { pullPolicy: 'never', image: 'app:1' });
  world.engine.registry.add('app:1');

  await assert.rejects(
    world.puller.ensure(never, imagesOf(never.spec.task.container), () => undefined),
    (error) => hasCode(error, 'not-found') && /No such image: app:1.*never pulled/.test(error.message),
  );
  await world.engine.images.pull('app:1');
  await world.puller.ensure(never, imagesOf(never.spec.task.container), () => undefined);
  assert.equal(world.pulls.length, 0);
});

test('with always, a registry that does not answer is a failure even when the image is here', async () => {
  const world = new World();
  await world.timesAsked('always', 'app:1');
  world.engine.registry.delete('app:1');

  await assert.rejects(
    world.puller.ensure(revision(3, { pullPolicy: 'always', image: 'app:1' }), ['app:1'], () => undefined),
    (error) => hasCode(error, 'not-found'),
  );
});

test('credentials go along, and are waited for', async () => {
  const world = new World();
  const one = revision(1, { pullPolicy: 'auto', image: 'app:1' });
  world.engine.registry.add('app:1');

  await assert.rejects(
    world.puller.ensure(one, imagesOf(one.spec.task.container), () => {
      throw new SwarmError('unavailable', 'not sent yet');
    }),
    (error) => hasCode(error, 'unavailable'),
  );
  await world.puller.ensure(one, imagesOf(one.spec.task.container), () => auth);
  assert.deepEqual(world.pulls, [{ credentials: auth }]);
});
