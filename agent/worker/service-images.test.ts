import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyMeta } from '../../core/generated/objects.ts';
import { aService } from '../../test/support/cluster-in-process.ts';
import { ServiceImages } from './service-images.ts';

function revision(serviceId: string, specVersion: number, image: string) {
  const spec = aService(serviceId, { container: { image } });
  return {
    id: `${serviceId}.${specVersion}`,
    meta: emptyMeta,
    serviceId,
    specVersion,
    spec,
    registryAuth: false,
  };
}

test('tasks of one spec may have different images', () => {
  const images = new ServiceImages();
  const one = revision('web', 1, 'web:1');
  images.note(one, ['web:1', 'data:1']);
  images.note(one, ['web:1', 'data:2']);

  assert.deepEqual(images.wanted(new Set(['web.1'])).sort(), ['data:1', 'data:2', 'web:1']);
});

test('the images of the current and the previous spec are needed while the service has tasks here', () => {
  const images = new ServiceImages();
  images.note(revision('web', 1, 'web:1'), ['web:1']);
  images.note(revision('web', 2, 'web:2'), ['web:2']);
  images.note(revision('web', 3, 'web:3'), ['web:3']);
  images.note(revision('db', 1, 'db:1'), ['db:1']);

  const wanted = (...live: string[]) => images.wanted(new Set(live)).sort();
  assert.deepEqual(wanted('web.1', 'web.3', 'db.1'), ['db:1', 'web:1', 'web:2', 'web:3']);
  assert.deepEqual(wanted('web.3'), ['db:1', 'web:2', 'web:3'], 'old tasks have ended');
  images.forget('web.1');
  images.forget('web.2');
  assert.deepEqual(wanted('web.3'), ['db:1', 'web:2', 'web:3'], 'there is a way back');
  images.forget('web.3');
  images.forget('db.1');
  assert.deepEqual(wanted(), []);
});
