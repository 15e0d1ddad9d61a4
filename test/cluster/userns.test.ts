// Services whose containers have users of their own, through the built command line: on two hosts, over networks of the
// cluster, and on a node that gives such users by default.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { IDLE, tasksOf, untilRunning } from '../support/services.ts';

const image = 'localhost/tsu:1';
const WEB = `mkdir -p /tmp/www && echo hello >/tmp/www/index.html && httpd -p 80 -h /tmp/www && ${IDLE}`;

/** First id of the machine that is root of a process. */
const rootOf = (pid: number) => Number(readFileSync(`/proc/${pid}/uid_map`, 'utf8').trim().split(/\s+/)[1]);

const usersOn = (node: RealNode) => readdirSync(path.join(node.runDir, 'users'));

const mountsOn = (node: RealNode, folder: string) =>
  readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(` ${path.join(node.runDir, folder)}/`));

describe('services with users of their own', { skip: whyNoRealNode() ?? false }, () => {
  let cluster: RealCluster;
  let node: RealNode;
  let directory: string;
  const succeed = async (...args: readonly string[]) => (await node.succeed(...args)).stdout;
  const idOf = async (service: string): Promise<string> =>
    JSON.parse(await succeed('service', 'inspect', service))[0].ID;
  const running = async (service: string, count = 1) => untilRunning(node, await idOf(service), count);

  before(async () => {
    directory = await mkdtemp(path.join(os.tmpdir(), 'tsu-'));
    cluster = await RealCluster.start('tsu', 2);
    node = cluster.node(0);
    await cluster.init();
    await cluster.join(1, 'worker');
    const { archive } = await buildDemoImage({ name: image });
    for (const each of cluster.nodes) await each.importImage(archive);
    await succeed('network', 'create', '--driver', 'overlay', 'front');
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  test('they serve on low ports, reach others by name across nodes, are healthy, and have their secrets', async () => {
    await writeFile(path.join(directory, 'one'), 'first');
    await writeFile(path.join(directory, 'two'), 'second');
    await succeed('secret', 'create', 'word', path.join(directory, 'one'));
    const common = [
      ...['--no-resolve-image', '--detach', '--update-monitor', '100ms'],
      ...['--userns', 'private', '--network', 'front'],
    ];
    await succeed(
      ...['service', 'create', '--name', 'web', ...common, '--mode', 'global', '--user', 'web'],
      ...['--secret', 'source=word,target=word,uid=1000,gid=1000,mode=0400', '--publish', '18080:80'],
      ...['--health-cmd', 'wget -q -O /dev/null http://127.0.0.1/', '--health-interval', '1s'],
      ...['--mount', 'type=volume,source=data,target=/data', image, 'sh', '-c', WEB],
    );
    await succeed('service', 'create', '--name', 'client', ...common, image, 'sh', '-c', IDLE);
    const tasks = await running('web', 2);
    const [client] = await running('client');

    const roots = [...tasks, client].map((task) => rootOf(task?.status.container?.pid ?? 0));
    assert.ok(roots.every((root) => root > 2_000_000_000));
    const inClient = (script: string) => succeed('exec', 'client.1', 'sh', '-c', script);
    const asked =
      'for i in 1 2 3 4; do wget -q -O - http://web/ 2>&1; done; ping -c 1 tasks.web | grep -c "1 packets received"; id -u';
    assert.equal(await inClient(asked), 'hello\nhello\nhello\nhello\n1\n0\n');
    const secretIn = (id: string) =>
      succeed('exec', id, 'sh', '-c', 'stat -c %u:%a /run/secrets/word; cat /run/secrets/word');
    assert.equal(await secretIn(tasks[0]?.id ?? ''), '1000:400\nfirst');

    const [sent, back] = [path.join(directory, 'sent'), path.join(directory, 'back')];
    await writeFile(sent, 'x'.repeat(1_000_000));
    await succeed('cp', sent, 'client.1:/etc/word');
    assert.equal(await inClient('stat -c %u /etc/word; echo more >>/etc/word'), '0\n');
    await succeed('cp', 'client.1:/etc/word', back);
    assert.equal(readFileSync(back, 'utf8'), `${'x'.repeat(1_000_000)}more\n`);

    await node.killDaemon();
    await node.startDaemon();
    await eventually(() => running('web', 2));
    const now = await running('web', 2);
    assert.deepEqual(now.map(({ id }) => id).sort(), tasks.map(({ id }) => id).sort());
    await eventually(() => succeed('secret', 'update', 'word', path.join(directory, 'two')));
    for (const { id } of tasks)
      await eventually(async () => (await secretIn(id)) === '1000:400\nsecond', 20_000);
    assert.match(await inClient('wget -q -O - http://web/'), /hello/);
  });

  test('they are shown, and what does not go with them is refused', async () => {
    const [inspected] = JSON.parse(await succeed('service', 'inspect', 'client'));
    assert.equal(inspected.Spec.TaskTemplate.ContainerSpec.UsernsMode, 'private');
    assert.match(await succeed('service', 'inspect', '--pretty', 'client'), /UsernsMode:\s+private/);

    const refused = await node.cli('service', 'update', '--privileged', 'client');
    assert.match(refused.stderr, /userns: "private" conflicts with privileged/);
  });

  test('an update takes the users away and gives them back', async () => {
    await succeed('service', 'update', '--userns', 'host', 'client');
    const [task] = await running('client');
    assert.equal(rootOf(task?.status.container?.pid ?? 0), 0);
    await succeed('service', 'update', '--userns', 'private', 'client');
    const [again] = await running('client');
    assert.notEqual(rootOf(again?.status.container?.pid ?? 0), 0);
  });

  test('a removed service leaves no ids, mounts or namespaces', async () => {
    await succeed('service', 'rm', 'web', 'client');
    for (const each of cluster.nodes) {
      await each.untilEmpty();
      await eventually(() => usersOn(each).length === 0);
      await eventually(() => readdirSync(path.join(each.runDir, 'task-netns')).length === 0);
      for (const folder of ['users', 'mounts', 'secrets']) assert.deepEqual(mountsOn(each, folder), []);
    }
  });
});

describe('a node whose containers have users of their own by default', {
  skip: whyNoRealNode() ?? false,
}, () => {
  let node: RealNode;

  before(async () => {
    node = await RealNode.start({ flags: ['--userns', 'private'] });
    await node.init();
    await node.importImage((await buildDemoImage({ name: image })).archive);
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
  });

  const create = async (name: string, ...flags: readonly string[]): Promise<string> => {
    const args = ['--detach', '--no-resolve-image', '--name', name, ...flags, image, 'sh', '-c', WEB];
    return (await node.succeed('service', 'create', ...args)).stdout.trim();
  };

  test('a service that says nothing has them, one that says host has not', async () => {
    const [usual] = await untilRunning(node, await create('usual', '--publish', 'mode=host,target=80'), 1);
    const [opted] = await untilRunning(node, await create('opted', '--userns', 'host'), 1);

    assert.ok(rootOf(usual?.status.container?.pid ?? 0) > 2_000_000_000);
    assert.equal(rootOf(opted?.status.container?.pid ?? 0), 0);
    assert.equal(usersOn(node).length, 1);
    const port = usual?.status.ports[0]?.publishedPort;
    const answer = await eventually(() => fetch(`http://127.0.0.1:${port}/`));
    assert.equal(await answer.text(), 'hello\n');
  });

  test('a service that needs rights over the node is told how to get them', async () => {
    const id = await create('mighty', '--privileged', '--restart-condition', 'none');

    const error = await eventually(
      async () => (await tasksOf(node, id)).find((task) => task.status.error)?.status.error,
    );
    assert.match(error, /^userns: on node \S+ containers have users of their own, .* privileged/);
    await node.succeed('service', 'rm', 'mighty');
    const [task] = await untilRunning(node, await create('mighty', '--privileged', '--userns', 'host'), 1);
    assert.equal(rootOf(task?.status.container?.pid ?? 0), 0);
    await eventually(() => usersOn(node).length === 1);
  });
});
