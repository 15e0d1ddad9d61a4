// A published port goes from a task to the one that replaces it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyPortConfig } from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { createService, tasksOf, untilRunning } from '../support/services.ts';

const skip = whyNoRealNode() ?? false;

test('every replacement gets the port of the task before it', { skip }, async () => {
  await using node = await RealNode.start();
  await node.init();
  await node.importImage((await buildDemoImage({ name: 'bb:1' })).archive);
  const ports = [
    {
      ...emptyPortConfig,
      name: '',
      targetPort: 80,
      publishedPort: 38_417,
      publishMode: 'host' as const,
    },
  ];
  let service = await createService(node, 'web', { image: 'bb:1', ports });
  await untilRunning(node, service.id, 1);

  for (let round = 1; round <= 5; round++) {
    const spec = { ...service.spec, task: { ...service.spec.task, forceUpdate: round } };
    service = (
      await node.control.updateService({
        serviceId: service.id,
        version: service.specVersion,
        spec,
        rollback: false,
      })
    ).service;
    await eventually(async () => {
      const [running] = await untilRunning(node, service.id, 1);
      return running?.specVersion === service.specVersion;
    });
  }

  const errors = (await tasksOf(node, service.id)).map(({ status }) => status.error).filter(Boolean);
  assert.deepEqual(errors, []);
});
