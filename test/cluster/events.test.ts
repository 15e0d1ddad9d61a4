// What real daemons tell of what happens, who did it, and what would fit: three managers, asked by the command line.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { whyNoRealNode } from '../support/real-node.ts';
import { IDLE } from '../support/services.ts';

const CLI = path.join(import.meta.dirname, '..', '..', 'dist', 'bin', 'tsswarm');
const IMAGE = 'localhost/bb:1';
const CARDS = ['--node-generic-resource', 'GPU=card0'];

describe('events, authors and capacity', { skip: whyNoRealNode() ?? false, timeout: 120_000 }, () => {
  let cluster: RealCluster;
  const children: ChildProcess[] = [];

  before(async () => {
    cluster = await RealCluster.start('tsr', 3, { flags: CARDS });
    await cluster.init();
    for (const position of [1, 2]) await cluster.join(position, 'manager');
    const { archive } = await buildDemoImage({ name: IMAGE });
    for (const node of cluster.nodes) await node.importImage(archive);
    for (const position of [1, 2]) await cluster.until(position, ({ status }) => status.state === 'ready');
  });
  after(async () => {
    for (const child of children) child.kill('SIGKILL');
    await cluster?.[Symbol.asyncDispose]();
  });

  const create = (position: number, name: string, ...flags: readonly string[]) =>
    cluster
      .node(position)
      .cli(
        'service',
        'create',
        '--no-resolve-image',
        '--update-monitor',
        '100ms',
        '--name',
        name,
        ...flags,
        IMAGE,
        'sh',
        '-c',
        IDLE,
      );
  /** What `tsswarm events` says on a host, as it comes. */
  const follow = (position: number, ...flags: readonly string[]) => {
    const host = `unix://${path.join(cluster.node(position).runDir, 'control.sock')}`;
    const child = spawn(CLI, ['events', ...flags], { env: { ...process.env, TSSWARM_HOST: host } });
    children.push(child);
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (piece: string) => {
      said += piece;
    });
    child.stderr.pipe(process.stderr);
    return () => said;
  };

  test('a drain and a dry run know of cards and of neighbours', async () => {
    const made = await create(1, 'cards', '--replicas', '3', '--generic-resource', 'GPU=1');
    assert.equal(made.code, 0, made.stderr);
    const [, host = ''] = cluster.lan.hosts;

    const refused = await cluster.node(0).cli('node', 'drain', host);
    assert.match(refused.stderr, /service cards will not fit \(1 task\): needs 1 of GPU, free 0 at most/);
    const dry = await create(1, 'alone', '--dry-run', '--placement-affinity', 'service!=cards');
    assert.match(dry.stdout, /no room for 1 of 1 tasks: its affinities are not satisfied \(service!=cards\)/);
    const preferred = await create(1, 'near', '--dry-run', '--placement-affinity', 'prefer:service!=cards');
    assert.equal(preferred.code, 0, preferred.stdout);
    const capacity = await cluster.node(2).cli('cluster', 'capacity');
    assert.equal(capacity.code, 1);
    assert.match(capacity.stdout, /cards/);
  });

  test('who watches any manager is told what happens, and what happens while the leader dies, once', async () => {
    const said = follow(1);
    let turn = 0;
    await eventually(async () => {
      await cluster.node(1).cli('service', 'update', '-d', '-q', '--label-add', `turn=${turn++}`, 'cards');
      return said() !== '';
    }, 30_000);
    const [first = '', host = ''] = cluster.lan.hosts;
    const history = await cluster.node(2).cli('service', 'history', '--format', '{{.CreatedBy}}', 'cards');
    assert.deepEqual([...new Set(history.stdout.trim().split('\n'))], [`uid 0 on ${host}`]);

    await create(2, 'before', '-d');
    await cluster.node(0).killDaemon();
    await eventually(async () => (await create(2, 'meanwhile', '-d')).code === 0, 30_000, 200);

    await eventually(() => /service create \S+ \(name=meanwhile\)/.test(said()), 30_000);
    await eventually(
      () => new RegExp(`node update .*name=${first}.*state\\.new=(suspect|down)`).test(said()),
      30_000,
    );
    for (const name of ['before', 'meanwhile'])
      assert.equal(said().split(`(name=${name})`).length - 1, 1, said());
    assert.match(said(), /task update \S+ \(.*name=meanwhile\.1.*state\.new=running/);
  });
});
