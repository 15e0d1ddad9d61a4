// The command line as operators run it: the real program in its own process, against a manager and a fake engine.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { CliCluster, DIGEST, runProgram } from './support/cli-cluster.ts';
import { eventually } from './support/eventually.ts';

const QUICK = ['--update-monitor', '50ms', '--rollback-monitor', '50ms', '--restart-delay', '50ms'];

async function createWeb(cli: CliCluster, ...more: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await cli.run([
    'service',
    'create',
    '--name',
    'web',
    '-q',
    '--no-resolve-image',
    ...QUICK,
    ...more,
    'busybox',
    'sleep',
    '100',
  ]);
  assert.equal(code, 0, stderr);
  return stdout.trim();
}

test('create prints the id, shows its progress and ends when the service is stable', async () => {
  await using cli = await CliCluster.start();

  const { code, stdout, stderr } = await cli.run([
    'service',
    'create',
    '--name',
    'web',
    '--replicas',
    '2',
    ...QUICK,
    'busybox',
    'sleep',
    '--flag',
  ]);

  assert.equal(code, 0, stderr);
  assert.match(stdout, /^[0-9a-z]{25}\n/);
  assert.match(stdout, /overall progress: 2 out of 2 tasks\n/);
  assert.match(stdout, /2\/2: running {3}\[=+>\]/);
  assert.match(stdout, /verify: Service [0-9a-z]{25} converged\n$/);
  assert.ok(!stdout.includes('\u001b'));
  assert.match(stderr, /image busybox:latest could not be accessed on a registry to record/);
  const { spec } = (await cli.cluster.control.getService({ service: 'web' })).service;
  assert.deepEqual(spec.task.container.args, ['sleep', '--flag']);
});

test('create with --detach returns before anything runs', async () => {
  await using cli = await CliCluster.start();

  const { code, stdout } = await cli.run([
    'service',
    'create',
    '-d',
    '--replicas=3',
    '--name=web',
    'busybox',
  ]);

  assert.equal(code, 0);
  assert.match(stdout, /^[0-9a-z]{25}\n$/);
  await cli.cluster.untilRunning('web', 3);
});

test('an image is pinned to the digest and platforms that its registry has', async () => {
  await using cli = await CliCluster.start();

  const { code, stderr } = await cli.run(['service', 'create', '-q', '--name', 'web', ...QUICK, 'pinned']);

  assert.equal(code, 0, stderr);
  assert.equal(stderr, '');
  const { task } = (await cli.cluster.control.getService({ service: 'web' })).service.spec;
  assert.equal(task.container.image, `pinned:latest@${DIGEST}`);
  assert.deepEqual(task.placement.platforms, [{ os: 'linux', architecture: 'amd64' }]);
  const { stdout } = await cli.run(['service', 'ls', '--format', '{{.Image}}']);
  assert.equal(stdout, 'pinned:latest\n');
});

test('ls shows tables, names, JSON and templates, and filters', async () => {
  await using cli = await CliCluster.start();
  const id = await createWeb(cli, '--label', 'tier=front');

  const table = await cli.run(['service', 'ls']);
  const quiet = await cli.run(['service', 'list', '-q']);
  const json = await cli.run(['service', 'ls', '--format', 'json']);
  const template = await cli.run(['service', 'ls', '--format', 'table {{.Name}}\\t{{upper .Mode}}']);
  const none = await cli.run(['service', 'ls', '-f', 'label=tier=back']);
  const unknown = await cli.run(['service', 'ls', '--filter', 'color=red']);

  assert.equal(
    table.stdout,
    `ID             NAME      MODE         REPLICAS   IMAGE            PORTS\n${id.slice(0, 12)}   web       replicated   1/1        busybox:latest   \n`,
  );
  assert.equal(quiet.stdout, `${id}\n`);
  assert.equal(JSON.parse(json.stdout).Replicas, '1/1');
  assert.equal(template.stdout, 'NAME      MODE\nweb       REPLICATED\n');
  assert.equal(none.stdout.split('\n').length, 2);
  assert.equal(unknown.code, 1);
  assert.match(unknown.stderr, /invalid filter "color"; known are id, label, mode, name/);
});

test('ps draws the history of a slot below its newest task', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);
  const [first] = await cli.cluster.untilRunning('web', 1);
  cli.cluster.engine.exit(first?.id ?? '', 3);
  await eventually(async () => (await cli.cluster.running('web')).some(({ id }) => id !== first?.id));

  const all = await cli.run(['service', 'ps', 'web']);
  const wanted = await cli.run([
    'service',
    'ps',
    'web',
    '-f',
    'desired-state=running',
    '--format',
    '{{.Name}} {{.Node}}',
  ]);
  const onNode = await cli.run(['node', 'ps', '--format', '{{.Name}}', '--filter', 'desired-state=running']);
  const missing = await cli.run(['service', 'ps', 'web', 'nosuch']);

  assert.match(all.stdout, /^ID +NAME +IMAGE +NODE +DESIRED STATE +CURRENT STATE +ERROR +PORTS\n/);
  assert.match(
    all.stdout,
    /\n[0-9a-z]{12} +web\.1 +busybox:latest +testnode +Running +Running (less than a|\d+) seconds? ago/,
  );
  assert.match(all.stdout, / \\_ web\.1 .* Shutdown +Failed .* "task: non-zero exit \(3\)"/);
  assert.equal(wanted.stdout, 'web.1 testnode\n');
  assert.equal(onNode.stdout, 'web.1\n');
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /no such service: nosuch/);
});

test("inspect prints Docker's JSON, templates and text, and [] for what is missing", async () => {
  await using cli = await CliCluster.start();
  const id = await createWeb(
    cli,
    '-p',
    'mode=host,target=80,published=8080',
    '-e',
    'A=b',
    '--limit-memory',
    '64m',
  );

  const json = await cli.run(['service', 'inspect', 'web']);
  const field = await cli.run([
    'service',
    'inspect',
    '-f',
    '{{.Spec.Mode.Replicated.Replicas}} {{json .Spec.TaskTemplate.ContainerSpec.Env}}',
    'web',
  ]);
  const pretty = await cli.run(['service', 'inspect', '--pretty', 'web']);
  const missing = await cli.run(['service', 'inspect', 'nosuch']);
  const node = await cli.run([
    'node',
    'inspect',
    'self',
    '--format',
    '{{.Description.Hostname}} {{.Spec.Role}}',
  ]);

  const [service] = JSON.parse(json.stdout);
  assert.equal(service.ID, id);
  assert.equal(service.Spec.TaskTemplate.ContainerSpec.StopGracePeriod, 10_000_000_000);
  assert.equal(service.Spec.TaskTemplate.Resources.Limits.MemoryBytes, 64 * 2 ** 20);
  assert.deepEqual(service.Spec.EndpointSpec.Ports, [
    { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'host' },
  ]);
  assert.equal(field.stdout, '1 ["A=b"]\n');
  assert.match(pretty.stdout, /Name:\t\tweb\n/);
  assert.equal(missing.code, 1);
  assert.equal(missing.stdout, '[]\n');
  assert.match(missing.stderr, /service nosuch not found/);
  assert.equal(node.stdout, 'testnode manager\n');
});

test('history and inspect tell who gave a service its spec', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);
  await cli.run(['service', 'update', '-q', '--label-add', 'a=b', 'web']);

  const history = await cli.run(['service', 'history', '--format', '{{.Version}} {{.CreatedBy}}', 'web']);
  const pretty = await cli.run(['service', 'inspect', '--pretty', 'web']);

  const me = `uid ${process.getuid?.()} on testnode`;
  assert.equal(history.stdout, `2 ${me}\n1 ${me}\n`);
  assert.ok(pretty.stdout.includes(`Updated by:\t${me}\n`), pretty.stdout);
});

test('a service is stopped, started and restarted with all that it is', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);
  const states = async () => {
    const { services } = await cli.cluster.control.listServices({});
    return services.map(({ runningTasks, desiredTasks }) => `${runningTasks}/${desiredTasks}`);
  };
  const before = (await cli.cluster.control.getService({ service: 'web' })).service.spec;

  const stopped = await cli.run(['service', 'stop', 'web']);
  assert.deepEqual([stopped.code, await states()], [0, ['0/0']]);
  assert.match((await cli.run(['why', 'web'])).stdout, /web is stopped: "tsswarm service start web"/);
  assert.match(
    (await cli.run(['service', 'inspect', '--pretty', 'web'])).stdout,
    /Replicas:\s+\d+ \(stopped\)/,
  );

  const started = await cli.run(['service', 'start', 'web']);
  const { replicas = 0 } = before.mode.replicated ?? {};
  assert.deepEqual([started.code, await states()], [0, [`${replicas}/${replicas}`]]);
  assert.deepEqual((await cli.cluster.control.getService({ service: 'web' })).service.spec, before);

  const restarted = await cli.run(['service', 'restart', 'web', 'nosuch']);
  assert.equal(restarted.code, 1);
  assert.match(restarted.stderr, /service nosuch not found/);
  assert.equal((await cli.cluster.control.getService({ service: 'web' })).service.spec.task.forceUpdate, 1);
  assert.deepEqual(await states(), [`${replicas}/${replicas}`]);
});

test('scale, update and rollback change what runs and wait for it', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);

  const scaled = await cli.run(['service', 'scale', 'web=3']);
  const updated = await cli.run([
    'service',
    'update',
    '--env-add',
    'A=1',
    '--update-parallelism',
    '0',
    'web',
  ]);
  const env = async () =>
    (await cli.cluster.control.getService({ service: 'web' })).service.spec.task.container.env;
  const envUpdated = await env();
  const rolledBack = await cli.run(['service', 'rollback', 'web']);

  assert.equal(scaled.code, 0, scaled.stderr);
  assert.match(scaled.stdout, /^web scaled to 3\noverall progress: /);
  assert.equal(updated.code, 0, updated.stderr);
  assert.match(updated.stdout, /^web\n.*converged\n$/s);
  assert.deepEqual(envUpdated, ['A=1']);
  assert.equal(rolledBack.code, 0, rolledBack.stderr);
  assert.match(rolledBack.stdout, /rollback: manually requested rollback/);
  assert.deepEqual(await env(), []);
  assert.equal((await cli.cluster.running('web')).length, 3);
});

test('an update that fails says so beside the bar and exits 1', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);

  const { code, stdout, stderr } = await cli.run(['service', 'update', '--image', 'nosuch:1', 'web']);

  assert.equal(code, 1);
  assert.match(stdout, /1\/1: .*No such image: nosuch:1/);
  assert.match(stderr, /service update paused: update paused due to failure or early termination of task/);
});

test('why explains what does not run and exits 1, and says so when all is well', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);
  await cli.run([
    'service',
    'create',
    '-d',
    '--name',
    'stuck',
    '--constraint',
    'node.labels.disk==ssd',
    'busybox',
  ]);
  await eventually(async () => (await cli.cluster.tasks('stuck')).some(({ status }) => status.error !== ''));

  const fine = await cli.run(['why', 'web']);
  const stuck = await cli.run(['why', 'stuck']);
  const ascii = await cli.run(['why', 'stuck'], { environment: { LANG: 'C' } });

  assert.equal(fine.code, 0);
  assert.match(fine.stdout, /^✔ service: web: 1 of 1 tasks are running/);
  assert.equal(stuck.code, 1);
  assert.match(
    stuck.stdout,
    /✘ scheduler: .*no suitable node \(scheduling constraints not satisfied on 1 node\)/,
  );
  assert.match(stuck.stdout, /→ label a node/);
  assert.match(ascii.stdout, /\[!!\] scheduler/);
});

test('a label put on a node lets a waiting task run', async () => {
  await using cli = await CliCluster.start();
  await cli.run([
    'service',
    'create',
    '-d',
    '--name',
    'stuck',
    '--constraint',
    'node.labels.disk==ssd',
    'busybox',
  ]);

  const updated = await cli.run(['node', 'update', '--label-add', 'disk=ssd', 'testnode']);

  assert.equal(updated.stdout, 'testnode\n', updated.stderr);
  await cli.cluster.untilRunning('stuck', 1);
  const list = await cli.run(['node', 'ls']);
  assert.match(
    list.stdout,
    /^ID {29}HOSTNAME {3}STATUS {4}AVAILABILITY {3}MANAGER STATUS {3}ENGINE VERSION\n/,
  );
  assert.match(list.stdout, /\nnode0+1 \* +testnode +Ready +Active +Leader/);
});

test('logs name the task and node that wrote a line', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);
  const [task] = await cli.cluster.untilRunning('web', 1);

  const logs = await cli.run(['service', 'logs', 'web']);
  const raw = await cli.run(['service', 'logs', '--raw', '-t', 'web.1']);
  const bad = await cli.run(['service', 'logs', '--tail', 'some', 'web']);

  assert.equal(logs.stdout, `web.1.${task?.id.slice(0, 12)}@testnode    | hello\n`);
  assert.equal(raw.stdout, '2026-01-01T00:00:00.000000000Z hello\n');
  assert.equal(bad.code, 125);
  assert.match(
    bad.stderr,
    /invalid argument "some" for "-n, --tail" flag: must be a number of lines or "all"/,
  );
});

test('rm removes what it finds and reports what it does not', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);

  const { code, stdout, stderr } = await cli.run(['service', 'rm', 'nosuch', 'web']);

  assert.equal(code, 1);
  assert.equal(stdout, 'web\n');
  assert.match(stderr, /service nosuch not found/);
  await eventually(() => cli.cluster.engine.running.size === 0);
});

test('images are listed, imported, exported and removed through the node socket', async () => {
  await using cli = await CliCluster.start();
  const folder = await mkdtemp(path.join(os.tmpdir(), 'tsw-cli-'));
  const file = path.join(folder, 'out.tar');

  const list = await cli.run(['image', 'ls']);
  const imported = await cli.run(['image', 'load', '-t', 'mine:1', '-'], { stdin: 'x'.repeat(3_000_000) });
  const exported = await cli.run(['image', 'save', '-o', file, 'busybox']);
  const removed = await cli.run(['image', 'rm', 'busybox']);

  assert.match(
    list.stdout,
    /^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE\nbusybox +latest +abababababab +3 hours ago +4.26MB\n$/,
  );
  assert.equal(imported.stdout, 'Loaded image: mine:1\n', imported.stderr);
  assert.equal(Buffer.concat(cli.imported).length, 3_000_000);
  assert.ok(cli.imported.every((data) => data.length <= 2 ** 20));
  assert.equal(exported.code, 0, exported.stderr);
  assert.equal(await readFile(file, 'utf8'), 'archive of images');
  assert.match(removed.stdout, /^Untagged: busybox\nDeleted: sha256:/);
  await rm(folder, { recursive: true });
});

test('info and init speak to the node', async () => {
  await using cli = await CliCluster.start();

  const info = await cli.run(['info']);
  const init = await cli.run(['swarm', 'init']);

  assert.equal(info.code, 0, info.stderr);
  assert.match(info.stdout, /\nSwarm: active\n NodeID: node0+1\n Is Manager: true\n/);
  assert.match(info.stdout, /\n {2}Heartbeat Period: Less than a second\n/);
  assert.equal(info.stderr, 'WARNING: no swap limit support\n');
  assert.equal(init.code, 1);
  assert.equal(
    init.stderr,
    'Error: this node is already part of a cluster\nUse "tsswarm leave --force" to leave it first.\n',
  );
});

test('completion knows commands, flags and the names of services', async () => {
  await using cli = await CliCluster.start();
  await createWeb(cli);

  const verbs = await cli.run(['__complete', 'service', 'ro']);
  const flags = await cli.run(['__complete', 'service', 'create', '--limit-']);
  const names = await cli.run(['__complete', 'service', 'scale', 'w']);

  assert.equal(verbs.stdout, "rollback\tRevert changes to a service's configuration\n:4\n");
  assert.match(flags.stdout, /^--limit-cpu\t.*\n--limit-memory\t.*\n--limit-pids\t.*\n:4\n$/);
  assert.equal(names.stdout, 'web=\n:6\n');
});

test('what is malformed is refused by name and never stored', async () => {
  await using cli = await CliCluster.start();
  const long = 'x'.repeat(70);
  const big = Array.from({ length: 9 }, (_, index) => ['-e', `V${index}=${'y'.repeat(100_000)}`]).flat();
  const cases: readonly (readonly [number, RegExp, readonly string[]])[] = [
    [1, /name: "a b" is not valid/, ['--name', 'a b', 'busybox']],
    [1, /name: must be 63 characters or fewer/, ['--name', long, 'busybox']],
    [1, /image: invalid reference format/, ['BusyBox']],
    [1, /image: invalid reference format/, ['busybox:']],
    [1, /image: invalid reference format/, ['busybox@sha256:12']],
    [125, /invalid argument "-1" for "--replicas" flag/, ['--replicas', '-1', 'busybox']],
    [125, /invalid argument "1.5" for "--replicas" flag/, ['--replicas=1.5', 'busybox']],
    [1, /replicas: \d+ is more than/, ['--replicas', '99999999', 'busybox']],
    [1, /unknown key "node.color"/, ['--constraint', 'node.color==red', 'busybox']],
    [1, /must be KEY==VALUE or KEY!=VALUE/, ['--constraint', 'node.role=worker', 'busybox']],
    [125, /"--limit-cpu" flag: must be a decimal/, ['--limit-cpu', 'two', 'busybox']],
    [1, /limit-cpu: .*less than 0.001/, ['--limit-cpu', '0.0001', 'busybox']],
    [125, /"--limit-memory" flag: must be a size/, ['--limit-memory', '5 apples', 'busybox']],
    [1, /limit-memory: .*less than 4 MiB/, ['--limit-memory', '1k', 'busybox']],
    [
      1,
      /reserve-memory: must not be more than limit-memory/,
      ['--reserve-memory', '1g', '--limit-memory', '8m', 'busybox'],
    ],
    [125, /"-p, --publish" flag: target port "99999"/, ['-p', 'mode=host,target=99999', 'busybox']],
    [125, /"-p, --publish" flag: target is missing/, ['-p', 'mode=host,published=80', 'busybox']],
    [125, /"-p, --publish" flag: unknown key "taget"/, ['-p', 'mode=host,taget=80', 'busybox']],
    [
      1,
      /publish: port 80\/tcp is published twice/,
      ['-p', 'mode=host,target=1,published=80', '-p', 'mode=host,target=2,published=80', 'busybox'],
    ],
    [125, /"--mount" flag: target is missing/, ['--mount', 'type=bind,source=/a', 'busybox']],
    [
      125,
      /"--mount" flag: type "npipe" is not supported/,
      ['--mount', 'type=npipe,source=a,target=/b', 'busybox'],
    ],
    [
      1,
      /mount: volume-opt: invalid option "a": the driver local has type, device and o/,
      ['--mount', 'target=/b,volume-opt=a=b', 'busybox'],
    ],
    [
      1,
      /mount: source: "..\/v" is not a valid volume name/,
      ['--mount', 'type=volume,source=../v,target=/b', 'busybox'],
    ],
    [1, /mount: target "b" must be an absolute path/, ['--mount', 'type=tmpfs,target=b', 'busybox']],
    [125, /"--stop-grace-period" flag: missing unit/, ['--stop-grace-period', '10', 'busybox']],
    [1, /stop-signal: "SIGNOPE"/, ['--stop-signal', 'SIGNOPE', 'busybox']],
    [1, /workdir: "srv" must be an absolute path/, ['-w', 'srv', 'busybox']],
    [1, /user: /, ['-u', 'a:b:c', 'busybox']],
    [1, /hostname: "-x-" is not a valid host name/, ['--hostname=-x-', 'busybox']],
    [
      125,
      /"--update-order" flag: must be "start-first" or "stop-first"/,
      ['--update-order', 'first', 'busybox'],
    ],
    [
      125,
      /"--update-max-failure-ratio" flag: must be a number from 0 to 1/,
      ['--update-max-failure-ratio', '2', 'busybox'],
    ],
    [1, /log-driver: "gelf" is not supported/, ['--log-driver', 'gelf', 'busybox']],
    [1, /log-opt: "max-sise" is unknown/, ['--log-opt', 'max-sise=1m', 'busybox']],
    [1, /env-file: ENOENT/, ['--env-file', '/nonexistent', 'busybox']],
    [
      125,
      /"--mode" flag: must be "replicated", "global", "replicated-job" or "global-job"/,
      ['--mode', 'everywhere', 'busybox'],
    ],
    [
      1,
      /--replicas can only be used with replicated or replicated-job mode/,
      ['--mode', 'global', '--replicas', '2', 'busybox'],
    ],
    [1, /--max-concurrent can only be used with replicated-job mode/, ['--max-concurrent', '2', 'busybox']],
    [
      1,
      /restart-condition: "any" is not for mode global-job/,
      ['--mode', 'global-job', '--restart-condition', 'any', 'busybox'],
    ],
    [
      1,
      /update-config: the flags --update-… are not for mode replicated-job/,
      ['--mode', 'replicated-job', '--update-delay', '1s', 'busybox'],
    ],
    [
      1,
      /replicas-max-per-node: can only be used with replicated/,
      ['--mode', 'global', '--replicas-max-per-node', '2', 'busybox'],
    ],
    [
      125,
      /invalid argument "gpu" for "--generic-resource" flag: .*must be KIND=COUNT/,
      ['--generic-resource', 'gpu', 'busybox'],
    ],
    [125, /^unknown flag: --foo\nSee 'tsswarm service create --help'\.\n$/, ['--foo', 'busybox']],
    [125, /unknown shorthand flag: 'z' in -z/, ['-z', 'busybox']],
    [125, /flag needs an argument: --name/, ['--name']],
    [1, /"tsswarm service create" requires at least 1 argument\./, []],
    [1, /spec: the whole spec has \d+ bytes/, ['--no-resolve-image', ...big, 'busybox']],
  ];
  for (let start = 0; start < cases.length; start += 4) {
    await Promise.all(
      cases.slice(start, start + 4).map(async ([code, message, args]) => {
        const result = await cli.run(['service', 'create', ...args]);
        assert.match(result.stderr, message, args.join(' ').slice(0, 80));
        assert.equal(result.code, code, args.join(' ').slice(0, 80));
        assert.equal(result.stdout, '');
      }),
    );
  }
  assert.deepEqual((await cli.cluster.control.listServices({})).services, []);
});

test('without a daemon the message says what to start', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'tsw-cli-'));
  await writeFile(path.join(folder, 'control.sock'), '');

  const nothing = await runProgram(['-H', path.join(folder, 'none', 'control.sock'), 'service', 'ls']);
  const unknown = await runProgram(['services']);
  const later = await runProgram(['stack', 'deploy']);
  const badHost = await runProgram(['--host', 'tcp://somewhere:1', 'service', 'ls']);

  assert.equal(nothing.code, 1);
  assert.match(nothing.stderr, /cannot connect to the daemon at unix:.*\nIs tsswarmd running\?/);
  assert.equal(nothing.stdout, '');
  assert.equal(unknown.code, 1);
  assert.match(unknown.stderr, /unknown command: tsswarm services/);
  assert.match(later.stderr, /tsswarm stack is not supported yet/);
  assert.equal(badHost.code, 125);
  await rm(folder, { recursive: true });
});

test('a node without a cluster is told to init', async () => {
  await using cli = await CliCluster.start();
  await cli.cluster.stopAgent();
  await cli.cluster.stopManager();
  cli.info = { state: 'inactive', nodeId: '', manager: false };

  const { code, stderr } = await cli.run(['service', 'ls']);

  assert.equal(code, 1);
  assert.match(stderr, /not part of a cluster.*\nUse "tsswarm init"/);
});
