// What is kept of a service's specs, how changes are told, and the way back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyMeta, type ServiceSpec } from '../../core/generated/objects.ts';
import { aServiceObject, NOW_MS, tablesOf } from '../../test/support/builders.ts';
import { revisionToReturnTo, serviceHistory } from './service-history.ts';
import { specChanges } from './spec-changes.ts';

const withImage = (spec: ServiceSpec, image: string): ServiceSpec => ({
  ...spec,
  task: { ...spec.task, container: { ...spec.task.container, image } },
});

function changedOften(times: number) {
  const first = aServiceObject('s', 1);
  const service = { ...first, specVersion: times, spec: withImage(first.spec, `app:${times}`) };
  const tables = tablesOf([service], []);
  for (let version = 1; version <= times; version++)
    tables.put('revision', {
      id: `s.${version}`,
      meta: { ...emptyMeta, createdAtMs: NOW_MS + version },
      serviceId: 's',
      specVersion: version,
      spec: withImage(first.spec, `app:${version}`),
      registryAuth: false,
      // The managers went back to the second one.
      ...(version !== 2 && { author: { nodeId: version === 1 ? 'n1' : 'gone', userId: 1000 } }),
    });
  return { service, tables };
}

test('history tells what changed from each spec to the next and who did it, the newest first', () => {
  const { tables } = changedOften(3);
  assert.deepEqual(serviceHistory(tables, 's').versions, [
    { version: 3, createdAtMs: NOW_MS + 3, createdBy: 'uid 1000 on gone', changes: ['image: app:2 → app:3'] },
    { version: 2, createdAtMs: NOW_MS + 2, createdBy: '', changes: ['image: app:1 → app:2'] },
    { version: 1, createdAtMs: NOW_MS + 1, createdBy: 'uid 1000 on n1', changes: [] },
  ]);
});

test('going back to a spec that is not kept names those that are', () => {
  const { tables, service } = changedOften(3);
  assert.equal(revisionToReturnTo(tables, service, 1).specVersion, 1);
  assert.throws(
    () => revisionToReturnTo(tables, service, 9),
    ({ code, hint }: { code: string; hint: string }) => code === 'not-found' && /2, 1 \(/.test(hint),
  );
  assert.throws(() => revisionToReturnTo(tables, service, 3), /has version 3 already/);
});

test('changes are told by the names of flags, lists by what came and went', () => {
  const before = aServiceObject('s', 2).spec;
  const after: ServiceSpec = {
    ...before,
    labels: { tier: 'web' },
    mode: { replicated: { replicas: 3 } },
    task: {
      ...before.task,
      container: { ...before.task.container, env: ['A=1'] },
      placement: { ...before.task.placement, constraints: ['node.role==worker'] },
    },
  };
  assert.deepEqual(specChanges(before, after), [
    'labels tier: none → web',
    'replicas: 2 → 3',
    'env: +A=1',
    'constraints: +node.role==worker',
  ]);
  assert.deepEqual(specChanges(before, before), []);
});
