import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type CommandEntry,
  type CommandGroup,
  type CommandLeaf,
  findChild,
  isGroup,
} from './command-entry.ts';
import { commandTree } from './command-tree.ts';
import { createFlags, updateFlags } from './flags/service-flags.ts';
import { commandHelp } from './help.ts';

function leaves(entry: CommandEntry): CommandLeaf[] {
  return isGroup(entry) ? entry.children.flatMap(leaves) : [entry];
}

test('the help of every command names each of its flags', async () => {
  for (const leaf of leaves(commandTree)) {
    const { command } = await leaf.load();

    const help = commandHelp(['tsswarm', leaf.name], leaf, command);

    for (const [name, flag] of Object.entries(command.flags)) {
      assert.ok(help.includes(`--${name}`), `${leaf.name} --${name}`);
      assert.ok(flag.isUnsupported || flag.help !== '', `${leaf.name} --${name} is not described`);
    }
  }
});

test('no two flags of a command share a shorthand', async () => {
  for (const leaf of leaves(commandTree)) {
    const { command } = await leaf.load();
    const shorthands = Object.values(command.flags).flatMap(({ shorthand }) => shorthand ?? []);
    assert.equal(new Set(shorthands).size, shorthands.length, leaf.name);
  }
});

test("Swarm's flags are all known, supported or not, and those of run that services have here", () => {
  const plain =
    'name mode replicas max-concurrent replicas-max-per-node no-resolve-image with-registry-auth entrypoint workdir user hostname reserve-cpu reserve-memory limit-cpu limit-memory limit-pids memory-swap memory-swappiness oom-score-adj cap-add cap-drop read-only init tty isolation credential-spec stop-signal stop-grace-period health-cmd health-interval health-timeout health-retries health-start-period health-start-interval no-healthcheck log-driver log-opt endpoint-mode restart-condition restart-delay restart-max-attempts restart-window update-parallelism update-delay update-order update-monitor update-failure-action update-max-failure-ratio rollback-parallelism rollback-delay rollback-order rollback-monitor rollback-failure-action rollback-max-failure-ratio detach quiet'.split(
      ' ',
    );
  const lists =
    'group env host dns dns-option dns-search label container-label constraint placement-pref generic-resource ulimit sysctl mount secret config network publish annotation device device-cgroup-rule security-opt tmpfs'.split(
      ' ',
    );
  const ofRun =
    'blkio-weight cgroup-parent cgroupns cpu-shares cpuset-cpus cpuset-mems interactive ipc pid privileged runtime shm-size userns uts'.split(
      ' ',
    );
  const own = [
    'placement-strategy',
    'rebalance',
    'dry-run',
    'affinity',
    'weight-label',
    'drain-time',
    'health-http',
    'health-tcp',
    'pull',
    'update-deadline',
    'rollback-deadline',
    ...ofRun,
  ];
  const ownLists = ['placement-affinity'];
  const create = [...plain, 'env-file', 'gpus', ...lists, ...ownLists, ...own];
  const update = [
    ...own,
    ...plain.filter((name) => name !== 'name' && name !== 'mode'),
    ...['image', 'args', 'force', 'rollback'],
    ...[...lists, ...ownLists].flatMap((name) => [`${name}-add`, `${name}-rm`]),
  ];

  assert.deepEqual(Object.keys(createFlags).sort(), create.sort());
  assert.deepEqual(Object.keys(updateFlags).sort(), update.sort());
});

test("Swarm's commands of membership and networks are there under its names, with all of its flags", async () => {
  const spec =
    'task-history-limit dispatcher-heartbeat max-snapshots snapshot-interval cert-expiry external-ca';
  const node = 'listen-addr advertise-addr data-path-addr availability';
  const known: Readonly<Record<string, string>> = {
    'swarm init': `${node} ${spec} data-path-port default-addr-pool default-addr-pool-mask-length force-new-cluster autolock`,
    'swarm join': `${node} token`,
    'swarm join-token': 'rotate quiet',
    'swarm leave': 'force',
    'swarm unlock': '',
    'swarm unlock-key': 'rotate quiet',
    'swarm ca': 'rotate ca-cert ca-key cert-expiry external-ca detach quiet',
    'swarm update': `${spec} autolock`,
    'node ls': 'filter format quiet',
    'node inspect': 'format pretty',
    'node ps': 'filter format no-resolve no-trunc quiet',
    'node update': 'availability role label-add label-rm',
    'node promote': '',
    'node demote': '',
    'node rm': 'force',
    'network create':
      'driver attachable ingress internal scope config-only config-from subnet ip-range gateway aux-address ipam-driver ipam-opt ipv4 ipv6 label opt',
    'network ls': 'filter format no-trunc quiet',
    'network list': '',
    'network inspect': 'format verbose',
    'network prune': 'filter force',
    'network rm': 'force',
    'network remove': '',
  };
  for (const [name, flags] of Object.entries(known)) {
    const leaf = name
      .split(' ')
      .reduce(
        (entry: CommandEntry, word) => findChild(entry as CommandGroup, word) as CommandEntry,
        commandTree,
      );
    const { command } = await (leaf as CommandLeaf).load();

    for (const flag of flags.split(' ').filter((word) => word !== ''))
      assert.ok(command.flags[flag]?.isUnsupported !== true && flag in command.flags, `${name} --${flag}`);
  }
});
