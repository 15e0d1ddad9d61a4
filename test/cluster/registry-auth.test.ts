// A private registry, as operators use it: login, push, and services whose nodes pull with what the operator knows. The
// password is nowhere but where Docker keeps it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { findPlanted, searchFiles } from '../support/find-bytes.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { whyNoRealNode } from '../support/real-node.ts';
import { missingForRegistry, type RealRegistry, startRegistry } from '../support/real-registry.ts';
import { IDLE, tasksOf, untilRunning } from '../support/services.ts';
import { PASSWORD, USERNAME } from '../support/token-server.ts';

const skip = whyNoRealNode() ?? (missingForRegistry || false);
const NAME = 'img';
const REGISTRY = '10.99.0.3:5000';

describe('a private registry', { skip }, () => {
  let cluster: RealCluster;
  let registry: RealRegistry;
  let dockerConfig: string;
  /** Of tags that were pushed. */
  const digests = new Map<string, string>();
  const before_ = process.env['DOCKER_CONFIG'];

  before(async () => {
    dockerConfig = await mkdtemp(path.join(os.tmpdir(), 'img-docker-'));
    process.env['DOCKER_CONFIG'] = dockerConfig;
    const configFile = path.join(dockerConfig, 'tsswarm.yaml');
    await writeFile(configFile, `registries:\n  insecure: ["${REGISTRY}"]\n`);
    cluster = await RealCluster.start(NAME, 2, { otherHosts: 1, flags: ['--config', configFile] });
    registry = await startRegistry({
      auth: 'basic',
      place: { netns: cluster.lan.hosts[2] ?? '', host: REGISTRY },
    });
    await cluster.init();
    await cluster.join(1, 'worker');
  });
  after(async () => {
    await registry?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
    if (before_ === undefined) delete process.env['DOCKER_CONFIG'];
    else process.env['DOCKER_CONFIG'] = before_;
    await rm(dockerConfig, { recursive: true });
  });

  const manager = () => cluster.node(0);
  const nameOf = (tag: string) => `${registry.host}/team/app:${tag}`;
  const updateTo = (tag: string) =>
    manager().succeed(
      'service',
      'update',
      '-d',
      '--update-parallelism',
      '0',
      '--image',
      nameOf(tag),
      'private',
    );
  /** In the registry, and on no node. */
  const publish = async (tag: string) => {
    await manager().importImage((await buildDemoImage({ name: nameOf(tag), layers: [{ tag }] })).archive);
    const { stdout } = await manager().succeed('image', 'push', nameOf(tag));
    await manager().succeed('image', 'rm', nameOf(tag));
    digests.set(tag, /digest: (sha256:[a-f0-9]{64})/.exec(stdout)?.[1] ?? '');
    return stdout;
  };
  const service = async (name: string) => (await manager().control.getService({ service: name })).service;
  const create = (name: string, ...more: readonly string[]) =>
    manager().succeed('service', 'create', '-d', '--name', name, ...more, nameOf('1'), 'sh', '-c', IDLE);

  test('login is refused with a wrong password, and keeps the right one where Docker does', async () => {
    await eventually(async () => {
      const wrong = await manager().cli('login', '-u', USERNAME, '-p', 'guessed', registry.host);
      assert.match(wrong.stderr, /login to 10\.99\.0\.3:5000 failed/);
      assert.equal(wrong.code, 1);
      return true;
    });
    const { stdout, stderr } = await manager().succeed(
      'login',
      '-u',
      USERNAME,
      '-p',
      PASSWORD,
      registry.host,
    );

    assert.equal(stdout, 'Login Succeeded\n');
    assert.match(stderr, /Using --password via the CLI is insecure/);
    const { auths } = JSON.parse(readFileSync(path.join(dockerConfig, 'config.json'), 'utf8'));
    assert.equal(Buffer.from(auths[registry.host].auth, 'base64').toString(), `${USERNAME}:${PASSWORD}`);
    assert.match(await publish('1'), /^1: digest: sha256:[a-f0-9]{64} size: \d+$/m);
  });

  test('without --with-registry-auth the nodes are refused, and say so', async () => {
    await create('public');

    const { id } = await service('public');
    await eventually(async () => {
      const tasks = await tasksOf(manager(), id);
      return tasks.some(({ status }) => /pull access denied .*no credentials given/.test(status.error));
    });
    await manager().succeed('service', 'rm', 'public');
  });

  test('with it every node pulls, also after an update without it and after a restart of a node', async () => {
    await create('private', '--with-registry-auth', '--replicas', '2', '--replicas-max-per-node', '1');
    const { id } = await service('private');
    await untilRunning(manager(), id, 2);

    await publish('2');
    await updateTo('2');
    await eventually(async () => {
      const running = await untilRunning(manager(), id, 2);
      return running.every(({ specVersion }) => specVersion === 2);
    }, 60_000);

    await cluster.node(1).killDaemon();
    await cluster.node(1).startDaemon();
    await publish('3');
    await updateTo('3');
    await eventually(async () => {
      const running = await untilRunning(manager(), id, 2);
      return running.every(({ specVersion }) => specVersion === 3);
    }, 60_000);
    const { images } = await cluster.node(1).node.listImages({});
    assert.ok(images.length >= 2, 'the image before is there for a way back');
    assert.match((await service('private')).spec.task.container.image, /:3@sha256:[a-f0-9]{64}$/);
  });

  test('prune leaves what services need now and may go back to, and counts the rest', async () => {
    const worker = cluster.node(1);
    await worker.succeed('image', 'pull', '-q', nameOf('1'));
    const idOf = async (tag: string) =>
      JSON.parse(
        (await worker.succeed('image', 'inspect', `${registry.host}/team/app@${digests.get(tag)}`)).stdout,
      )[0].Id;
    const kept = [await idOf('2'), await idOf('3')];

    const { stdout } = await worker.succeed('image', 'prune', '-a', '-f');

    assert.match(stdout, new RegExp(`untagged: ${nameOf('1')}\n`));
    const left = (await worker.succeed('image', 'ls', '-q', '--no-trunc')).stdout.trim().split('\n');
    assert.deepEqual(left.sort(), kept.sort());
    const { metricsAddress } = await worker.node.info({});
    const scrape = [
      'nsenter',
      `--net=/run/netns/${cluster.lan.hosts[1]}`,
      'busybox',
      'wget',
      '-qO-',
      `http://${metricsAddress}/metrics`,
    ];
    const metrics = execFileSync(scrape[0] as string, scrape.slice(1), { encoding: 'utf8' });
    assert.match(metrics, /^tsswarm_images_removed_total\{reason="by hand"\} \d+$/m);
    assert.match(metrics, /^tsswarm_images_reclaimed_bytes_total\{reason="by hand"\} [1-9]\d*$/m);
  });

  test('the password is in no answer and on no disk', async () => {
    const { stdout } = await manager().succeed('service', 'inspect', 'private');
    const answer = JSON.stringify([
      await service('private'),
      await tasksOf(manager(), (await service('private')).id),
    ]);
    const planted = [{ name: 'password', value: PASSWORD }];

    assert.deepEqual(findPlanted(Buffer.from(stdout + answer), planted), []);
    for (const node of cluster.nodes) {
      const { findings, fileCount } = searchFiles(node.directory, planted);
      assert.ok(fileCount > 10);
      assert.deepEqual(findings, []);
    }
  });

  test('logout forgets it', async () => {
    assert.equal(
      (await manager().succeed('logout', registry.host)).stdout,
      `Removing login credentials for ${registry.host}\n`,
    );
    assert.equal(
      (await manager().succeed('logout', registry.host)).stdout,
      `Not logged in to ${registry.host}\n`,
    );
    assert.match((await manager().cli('image', 'pull', nameOf('1'))).stderr, /no credentials given/);
  });
});
