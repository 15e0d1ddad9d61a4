import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from '../../core/defaults.ts';
import {
  emptyHealthCheck,
  emptyMount,
  emptySecurityOptions,
  emptyService,
  type HealthCheck,
} from '../../core/generated/objects.ts';
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

test("options of a container have Docker's names, those that its services lack the names of its containers", () => {
  const spec = newServiceSpec('web', {
    image: 'nginx:1',
    hosts: ['10.0.0.9 db'],
    dns: { nameServers: ['10.0.0.53'], search: [], options: ['ndots:1'] },
    capabilitiesAdded: ['CAP_NET_ADMIN'],
    ulimits: [{ name: 'nofile', soft: 1, hard: 2 }],
    init: true,
    oomScoreAdj: 5,
    devices: [{ pathOnHost: '/dev/fuse', pathInContainer: '/dev/f', permissions: 'rw' }],
    privileged: true,
    pidMode: 'host',
    shmSizeBytes: 1024,
    security: { ...emptySecurityOptions, noNewPrivileges: true, seccomp: '{}', appArmor: 'unconfined' },
    mounts: [
      {
        ...emptyMount,
        source: 'data',
        target: '/data',
        subpath: 'a',
        volumeNoCopy: true,
        volumeDriver: { name: 'local', options: { type: 'tmpfs' } },
      },
      { ...emptyMount, type: 'image', source: 'nginx', target: '/i', subpath: 'etc' },
      { ...emptyMount, type: 'bind', source: '/a', target: '/a', bindRecursive: 'writable' },
      { ...emptyMount, type: 'tmpfs', target: '/t', tmpfsOptions: ['exec', 'uid=1'] },
    ],
  });

  const shape = toDockerService({ ...emptyService, spec }) as { Spec: { TaskTemplate: object } };

  assert.deepEqual((shape.Spec.TaskTemplate as { ContainerSpec: object }).ContainerSpec, {
    Image: 'nginx:1',
    Privileges: {
      CredentialSpec: null,
      SELinuxContext: null,
      Seccomp: { Mode: 'custom', Profile: 'e30=' },
      AppArmor: { Mode: 'disabled' },
      NoNewPrivileges: true,
    },
    Mounts: [
      {
        Type: 'volume',
        Source: 'data',
        Target: '/data',
        VolumeOptions: {
          NoCopy: true,
          DriverConfig: { Name: 'local', Options: { type: 'tmpfs' } },
          Subpath: 'a',
        },
      },
      { Type: 'image', Source: 'nginx', Target: '/i', ImageOptions: { Subpath: 'etc' } },
      { Type: 'bind', Source: '/a', Target: '/a', BindOptions: { ReadOnlyNonRecursive: true } },
      { Type: 'tmpfs', Target: '/t', TmpfsOptions: { Options: [['exec'], ['uid', '1']] } },
    ],
    StopGracePeriod: 10e9,
    Hosts: ['10.0.0.9 db'],
    DNSConfig: { Nameservers: ['10.0.0.53'], Options: ['ndots:1'] },
    Init: true,
    Isolation: 'default',
    CapabilityAdd: ['CAP_NET_ADMIN'],
    Ulimits: [{ Name: 'nofile', Hard: 2, Soft: 1 }],
    OomScoreAdj: 5,
    Devices: [{ PathOnHost: '/dev/fuse', PathInContainer: '/dev/f', CgroupPermissions: 'rw' }],
    Privileged: true,
    PidMode: 'host',
    ShmSize: 1024,
  });
});
