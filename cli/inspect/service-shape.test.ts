import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from '../../core/defaults.ts';
import { emptyHealthCheck, emptyService, type HealthCheck } from '../../core/generated/objects.ts';
import { toDockerService } from './service-shape.ts';
import { formatTime } from './time.ts';

test("a service has Docker's names, nanoseconds and defaults", () => {
  const spec = newServiceSpec('web', { image: 'nginx:1', env: ['A=1'] });
  const meta = {
    version: 7,
    createdAtMs: Date.UTC(2026, 0, 2, 3, 4, 5, 60),
    updatedAtMs: Date.UTC(2026, 0, 2),
  };
  const updateConfig = {
    Parallelism: 1,
    FailureAction: 'pause',
    Monitor: 5e9,
    MaxFailureRatio: 0,
    Order: 'stop-first',
  };

  assert.deepEqual(toDockerService({ ...emptyService, id: 'x', meta, spec }), {
    ID: 'x',
    Version: { Index: 7 },
    CreatedAt: '2026-01-02T03:04:05.06Z',
    UpdatedAt: '2026-01-02T00:00:00Z',
    Spec: {
      Name: 'web',
      Labels: {},
      TaskTemplate: {
        ContainerSpec: { Image: 'nginx:1', Env: ['A=1'], StopGracePeriod: 10e9, Isolation: 'default' },
        Resources: {},
        RestartPolicy: { Condition: 'any', Delay: 5e9, MaxAttempts: 0 },
        Placement: {},
        ForceUpdate: 0,
        Runtime: 'container',
      },
      Mode: { Replicated: { Replicas: 1 } },
      UpdateConfig: updateConfig,
      RollbackConfig: updateConfig,
      EndpointSpec: { Mode: 'vip' },
    },
    Endpoint: { Spec: { Mode: 'vip' } },
  });
});

test('a health check has its times in nanoseconds, and nothing that is left to the image', () => {
  const shapeOf = (healthCheck: HealthCheck) => {
    const spec = newServiceSpec('web', { image: 'nginx:1', healthCheck });
    const shape = toDockerService({ ...emptyService, spec });
    return (shape as { Spec: { TaskTemplate: { ContainerSpec: { Healthcheck: object } } } }).Spec.TaskTemplate
      .ContainerSpec.Healthcheck;
  };

  assert.deepEqual(shapeOf({ ...emptyHealthCheck, test: ['NONE'] }), { Test: ['NONE'] });
  assert.deepEqual(
    shapeOf({
      test: ['CMD-SHELL', 'true'],
      intervalMs: 10_000,
      timeoutMs: 1,
      retries: 3,
      startPeriodMs: 60_000,
      startIntervalMs: 500,
    }),
    {
      Test: ['CMD-SHELL', 'true'],
      Interval: 10e9,
      Timeout: 1e6,
      Retries: 3,
      StartPeriod: 60e9,
      StartInterval: 5e8,
    },
  );
});

test('times leave out the zeros at their end', () => {
  assert.equal(formatTime(Date.UTC(2026, 10, 10, 10, 10, 10, 100)), '2026-11-10T10:10:10.1Z');
});
