import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from '../../core/defaults.ts';
import { emptyResourceLimits, type ServiceSpec } from '../../core/generated/objects.ts';
import { parseFlags } from './parse-flags.ts';
import { createFlags, updateFlags } from './service-flags.ts';
import { changedSpec, newSpec } from './service-spec.ts';

const networkIds = new Map([['front', 'id-of-front']]);
const source = {
  environment: { HOME_TOWN: 'Ulm' },
  workdir: '/home/op',
  networkIds,
  seccompProfiles: new Map([['p.json', '{}']]),
};

function created(line: string, envFileLines: readonly string[] = []): ServiceSpec {
  const { flags } = parseFlags(createFlags, line.split(' ').filter(Boolean));
  return newSpec(flags, { name: 'web', image: 'nginx', args: ['a'], envFileLines, ...source });
}

function updated(current: ServiceSpec, ...argv: readonly string[]): ServiceSpec {
  return changedSpec(current, parseFlags(updateFlags, argv).flags, source);
}

test('a service without flags is the default one, its image named with its tag', () => {
  assert.deepEqual(created(''), newServiceSpec('web', { image: 'nginx:latest', args: ['a'] }));
});

test('flags of create land in their fields', () => {
  const spec = created(
    '--replicas 3 --limit-memory 64m --reserve-cpu .25 --stop-grace-period 1m --restart-condition none ' +
      '--update-parallelism 0 --update-order start-first --rollback-monitor 1s --constraint node.role==worker ' +
      '--mount type=bind,source=./data,target=/data -l a=1 -l b --read-only --log-opt max-size=1m --entrypoint sh --replicas-max-per-node 2 ' +
      '--placement-pref spread=node.labels.rack --placement-strategy binpack --placement-affinity service!=db',
  );

  assert.equal(spec.mode.replicated?.replicas, 3);
  assert.equal(spec.task.resources.limits.memoryBytes, 64 * 2 ** 20);
  assert.equal(spec.task.resources.reservations.cpuNanos, 25e7);
  assert.equal(spec.task.container.stopGracePeriodMs, 60_000);
  assert.equal(spec.task.restart.condition, 'none');
  assert.deepEqual(
    [spec.update.parallelism, spec.update.order, spec.rollback.monitorMs],
    [0, 'start-first', 1000],
  );
  assert.deepEqual(spec.task.placement, {
    constraints: ['node.role==worker'],
    maxReplicasPerNode: 2,
    platforms: [],
    preferences: ['spread=node.labels.rack'],
    affinities: ['service!=db'],
    strategy: 'binpack',
  });
  assert.equal(spec.task.container.mounts[0]?.source, '/home/op/data');
  assert.deepEqual(spec.labels, { a: '1', b: '' });
  assert.equal(spec.task.container.readOnly, true);
  assert.deepEqual(spec.task.logDriver, { name: 'json-file', options: { 'max-size': '1m' } });
  assert.deepEqual(spec.task.container.command, ['sh']);
});

test('environment comes from files, then flags, then the caller', () => {
  const spec = created('-e A=2 -e HOME_TOWN -e NOT_SET', ['# comment', '', 'A=1', '  B=x y ']);

  assert.deepEqual(spec.task.container.env, ['A=2', 'B=x y ', 'HOME_TOWN=Ulm']);
});

test('an update without flags changes nothing', () => {
  const spec = created('--replicas 3 -e A=1 --mount type=tmpfs,target=/t -p mode=host,target=80');

  assert.deepEqual(updated(spec), spec);
});

test('an update adds, replaces and removes entries of lists', () => {
  const spec = created(
    '-e A=1 -e B=2 -l x=1 --constraint node.role==worker --mount type=tmpfs,target=/t -p mode=host,target=80 --group g1',
  );

  const next = updated(
    spec,
    ...['--env-add', 'B=3', '--env-add', 'C=4', '--env-rm', 'A', '--label-rm', 'x', '--label-add', 'y=2'],
    ...['--constraint-rm', 'node.role==worker', '--constraint-add', 'node.role==manager', '--mount-rm', '/t'],
    ...[
      '--mount-add',
      'type=bind,source=/s,target=/u',
      '--publish-rm',
      '80',
      '--publish-add',
      'mode=host,target=81',
    ],
    ...['--group-rm', 'g1', '--group-add', 'g2', '--container-label-add', 'c=1'],
  );

  assert.deepEqual(next.task.container.env, ['B=3', 'C=4']);
  assert.deepEqual(next.labels, { y: '2' });
  assert.deepEqual(next.task.placement.constraints, ['node.role==manager']);
  assert.deepEqual(
    next.task.container.mounts.map(({ target }) => target),
    ['/u'],
  );
  assert.deepEqual(
    next.endpoint.ports.map(({ targetPort }) => targetPort),
    [81],
  );
  assert.deepEqual(next.task.container.groups, ['g2']);
  assert.deepEqual(next.task.container.labels, { c: '1' });
});

test('a port or mount added again takes the place of the old one', () => {
  const spec = created('--mount type=tmpfs,target=/t -p mode=host,target=80,published=8080');

  const next = updated(
    spec,
    '--publish-add',
    'mode=host,target=80,published=9090',
    '--mount-add',
    'type=tmpfs,target=/t,tmpfs-size=1m',
  );

  assert.deepEqual(
    next.endpoint.ports.map(({ publishedPort }) => publishedPort),
    [9090],
  );
  assert.deepEqual(
    next.task.container.mounts.map(({ tmpfsSizeBytes }) => tmpfsSizeBytes),
    [2 ** 20],
  );
});

test('scalars of an update replace theirs and leave the others', () => {
  const spec = created('--limit-cpu 1 --limit-memory 64m');

  const next = updated(
    spec,
    '--limit-cpu',
    '2',
    '--args',
    'sleep "1 0"',
    '--force',
    '--image',
    'nginx:2',
    '--read-only=false',
  );

  assert.deepEqual(next.task.resources.limits, {
    ...emptyResourceLimits,
    cpuNanos: 2e9,
    memoryBytes: 64 * 2 ** 20,
  });
  assert.deepEqual(next.task.container.args, ['sleep', '1 0']);
  assert.equal(next.task.forceUpdate, 1);
  assert.equal(next.task.container.image, 'nginx:2');
});

test('networks and endpoint flags of an update change what they name', () => {
  const spec = created(
    '--network name=back,alias=a -p 80:80 -p 10.0.0.1:81:81 --endpoint-mode vip --affinity client-address',
  );
  const stored = {
    ...spec,
    task: {
      ...spec.task,
      networks: spec.task.networks.map((given) => ({ ...given, networkId: 'id-of-back' })),
    },
  };

  const added = updated(stored, '--network-add', 'name=front,alias=b', '--publish-add', '10.0.0.2:81:81');
  const again = updated(added, '--network-add', 'front', '--network-rm', 'id-of-back', '--weight-label', 'w');

  assert.deepEqual(
    added.task.networks.map(({ networkId, aliases }) => [networkId, ...aliases]),
    [
      ['id-of-back', 'a'],
      ['id-of-front', 'b'],
    ],
  );
  assert.deepEqual(
    added.endpoint.ports.map(({ hostAddress }) => hostAddress),
    ['', '10.0.0.1', '10.0.0.2'],
  );
  assert.deepEqual(
    again.task.networks.map(({ networkId, aliases }) => [networkId, ...aliases]),
    [['id-of-front']],
  );
  assert.deepEqual([again.endpoint.affinity, again.endpoint.weightLabel], ['client-address', 'w']);
});
