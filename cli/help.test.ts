import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CommandEntry, type CommandLeaf, commandTree, isGroup } from './command-tree.ts';
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

test("Swarm's flags are all known, supported or not", () => {
  const plain =
    'name mode replicas max-concurrent replicas-max-per-node no-resolve-image with-registry-auth entrypoint workdir user hostname reserve-cpu reserve-memory limit-cpu limit-memory limit-pids memory-swap memory-swappiness oom-score-adj cap-add cap-drop read-only init tty isolation credential-spec stop-signal stop-grace-period health-cmd health-interval health-timeout health-retries health-start-period health-start-interval no-healthcheck log-driver log-opt endpoint-mode restart-condition restart-delay restart-max-attempts restart-window update-parallelism update-delay update-order update-monitor update-failure-action update-max-failure-ratio rollback-parallelism rollback-delay rollback-order rollback-monitor rollback-failure-action rollback-max-failure-ratio detach quiet'.split(
      ' ',
    );
  const lists =
    'group env host dns dns-option dns-search label container-label constraint placement-pref generic-resource ulimit sysctl mount secret config network publish'.split(
      ' ',
    );
  const create = [...plain, 'env-file', ...lists];
  const update = [
    ...plain.filter((name) => name !== 'name' && name !== 'mode'),
    ...['image', 'args', 'force', 'rollback'],
    ...lists.flatMap((name) => [`${name}-add`, `${name}-rm`]),
  ];

  assert.deepEqual(Object.keys(createFlags).sort(), create.sort());
  assert.deepEqual(Object.keys(updateFlags).sort(), update.sort());
});
