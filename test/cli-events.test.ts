// `tsswarm events` as operators run it: the real program, against a manager and a fake engine.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CliCluster, startProgram } from './support/cli-cluster.ts';
import { eventually } from './support/eventually.ts';

const NAME = ['--name', 'web', '--no-resolve-image', '-q', '-d'];

test('events are told as they happen, as Docker writes them, filtered and as JSON', async () => {
  await using cli = await CliCluster.start();
  const environment = { TSSWARM_HOST: cli.host };
  await using all = startProgram(['events', '--filter', 'service=web'], { environment });
  const jsonArgs = ['events', '--format', 'json', '--filter', 'type=service', '--filter', 'event=update'];
  await using json = startProgram(jsonArgs, { environment });
  // They begin to listen when they are connected: something has to happen until both have.
  let label = 0;
  const created = await cli.run(['service', 'create', ...NAME, 'busybox']);
  assert.equal(created.code, 0, created.stderr);
  await eventually(async () => {
    await cli.run(['service', 'update', '-q', '-d', '--label-add', `turn=${label++}`, 'web']);
    return /service update/.test(all.stdout()) && json.stdout() !== '';
  }, 60_000);

  await cli.run(['service', 'scale', '-d', 'web=2']);
  await eventually(() => /task update \S+ \(.*name=web\.2.*state\.new=running/.test(all.stdout()));
  await eventually(() => /replicas\.new/.test(json.stdout()));

  assert.match(
    all.stdout(),
    /^\d{4}-\d\d-\d\dT[\d:.]+Z service update [0-9a-z]{25} \(name=web, replicas\.new=2, replicas\.old=1\)$/m,
  );
  const [scaled] = json
    .stdout()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ Actor }) => Actor.Attributes['replicas.new'] !== undefined);
  assert.deepEqual(
    [scaled.Type, scaled.Action, scaled.scope, scaled.Actor.Attributes],
    ['service', 'update', 'swarm', { name: 'web', 'replicas.old': '1', 'replicas.new': '2' }],
  );
  assert.ok(!json.stdout().includes('"task"'));

  const unknown = await cli.run(['events', '--filter', 'type=volume']);
  assert.match(unknown.stderr, /type: "volume" must be one of service, node, task/);
  const badKey = await cli.run(['events', '--filter', 'image=x']);
  assert.match(badKey.stderr, /invalid filter "image"; known are type, event, service, node/);
});
