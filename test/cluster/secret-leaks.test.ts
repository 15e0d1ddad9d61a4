// Where secrets are, and where they must not be: values are planted in a real cluster, daemons are killed at random
// points, and then everything that lasts is searched for them.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { defined } from '../../core/assert.ts';
import { emptyFileReference, type FileReference, type Service } from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import {
  type Finding,
  findPlanted,
  type Planted,
  searchFiles,
  searchMemory,
  searchProcesses,
} from '../support/find-bytes.ts';
import { managerPidOf } from '../support/process-status.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { type RealNode, whyNoRealNode } from '../support/real-node.ts';
import { createService, IDLE, untilRunning } from '../support/services.ts';

const image = 'localhost/bb:1';
const ROUNDS = 5;

describe('where secrets are', { skip: whyNoRealNode() ?? false }, () => {
  let cluster: RealCluster;
  const planted: Planted[] = [];

  before(async () => {
    cluster = await RealCluster.start('sec', 3);
    await cluster.init();
    for (const position of [1, 2]) await cluster.join(position, 'worker');
    for (const node of cluster.nodes) await node.importImage((await buildDemoImage({ name: image })).archive);
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const reference = (source: string, change: Partial<FileReference> = {}): FileReference => ({
    ...emptyFileReference,
    sourceId: source,
    target: source,
    mode: 0o400,
    ...change,
  });
  const plant = (name: string): string => {
    const value = `planted-${randomBytes(18).toString('hex')}`;
    planted.push({ name, value });
    return value;
  };
  const control = () => cluster.node(0).control;
  const create = async (kind: 'Secret' | 'Config', name: string, text: string, templateDriver = '') =>
    control()[`create${kind}`]({ spec: { name, labels: {}, templateDriver }, data: Buffer.from(text) });
  const renew = async (name: string, text: string) => {
    const { secret } = await control().getSecret({ source: name });
    const { id, spec, meta } = secret;
    await control().updateSecret({ id, version: meta.version, spec, data: Buffer.from(text) });
  };
  const onHost = (position: number, container: Parameters<typeof createService>[2]['container'] = {}) => ({
    image,
    script: IDLE,
    container: { ...container, stopGracePeriodMs: 100 },
    change: (spec: Service['spec']) => ({
      ...spec,
      task: {
        ...spec.task,
        placement: { ...spec.task.placement, constraints: [`node.hostname==${cluster.lan.hosts[position]}`] },
      },
    }),
  });
  const filesOn = (node: RealNode) => readdirSync(path.join(node.runDir, 'secrets'));
  const inTask = (node: RealNode, file: string): string => {
    const [task] = filesOn(node);
    return readFileSync(path.join(node.runDir, 'secrets', String(task), 'shown', file), 'utf8');
  };
  const removeAll = async () => {
    for (const { service } of (await control().listServices({})).services)
      await control().removeService({ service: service.id });
    for (const node of cluster.nodes) {
      await node.untilEmpty(30_000);
      await eventually(() => filesOn(node).length === 0, 20_000);
    }
  };

  test('a node gets a secret with the first of its tasks that needs it, and forgets it with the last', async () => {
    await create('Secret', 'only', plant('only'));
    await create('Secret', 'unused', plant('unused'));
    const files = { secrets: [reference('only')] };
    const first = await createService(cluster.node(0), 'first', onHost(1, files));
    const second = await createService(cluster.node(0), 'second', onHost(1, files));
    const without = await createService(cluster.node(0), 'without', onHost(2));
    for (const { id } of [first, second, without]) await untilRunning(cluster.node(0), id, 1);

    assert.deepEqual(
      cluster.nodes.map((node) => filesOn(node).length),
      [0, 2, 0],
    );
    assert.deepEqual(new Set(searchMemory(cluster.node(1).daemonPid, planted)), new Set(['only as text']));
    assert.deepEqual(searchMemory(cluster.node(2).daemonPid, planted), []);

    await control().removeService({ service: 'first' });
    await eventually(() => filesOn(cluster.node(1)).length === 1, 20_000);
    const next = plant('only, its second version');
    await renew('only', next);
    await eventually(() => inTask(cluster.node(1), '0.0') === next);
    await removeAll();
    assert.ok(!readFileSync('/proc/mounts', 'utf8').includes(`${cluster.node(1).runDir}/secrets/`));
    await control().removeSecret({ source: 'only' });
    await control().removeSecret({ source: 'unused' });
  });

  test('nothing that lasts has a secret in it, whenever daemons are killed', async () => {
    const seed = randomInt(2 ** 31);
    console.log(`secrets are planted with seed ${seed}`);
    const random = randomFrom(seed);
    await create('Secret', 'word', plant('word'));
    await create('Secret', 'made', `{{secret "word"}} ${plant('made')} {{.Task.Slot}}`, 'golang');
    await create('Config', 'conf', plant('conf'));
    const secrets = [reference('word'), reference('made', { target: '/etc/made' })];
    const configs = [reference('conf', { target: '/etc/conf' })];
    const services: Service[] = [];
    for (const position of [0, 1, 2])
      services.push(
        await createService(cluster.node(0), `on${position}`, onHost(position, { secrets, configs })),
      );
    for (let round = 0; round < ROUNDS; round++) {
      const victim = cluster.node(random(3));
      // Before it is stored, before it is delivered, or when all is done.
      const renewal = renew('word', plant(`word in round ${round}`)).catch(() => {});
      await [async () => {}, () => renewal, () => sleep(random(200))][random(3)]?.();
      await victim.killDaemon();
      await victim.startDaemon();
      await eventually(() => control().getCluster({}), 30_000);
    }
    const last = plant('word at the end');
    await eventually(() => renew('word', last).then(() => true), 30_000);
    for (const { id } of services) await untilRunning(cluster.node(0), id, 1);
    for (const node of cluster.nodes)
      await eventually(() => {
        assert.equal(inTask(node, '0.0'), last);
        assert.match(inTask(node, '1.0'), new RegExp(`^${last} `));
        return true;
      }, 30_000);

    const findings: Finding[] = [];
    for (const node of cluster.nodes) {
      const { findings: found, fileCount } = searchFiles(node.directory, planted, {
        except: [path.join(node.runDir, 'secrets')],
      });
      assert.ok(fileCount > 20, 'there is something to search');
      findings.push(...found);
    }
    findings.push(...searchProcesses(planted), ...(await searchAnswers()));
    assert.deepEqual(findings, []);
    // The search is able to find: the files of the tasks have the values.
    const { findings: meant } = searchFiles(path.join(cluster.node(1).runDir, 'secrets'), planted);
    assert.ok(meant.some(({ what }) => what === 'word at the end as text'));
  });

  /** What operators and scrapers are told. Only of configs may the content be there. */
  const searchAnswers = async (): Promise<Finding[]> => {
    const secretOnes = planted.filter(({ name }) => name !== 'conf');
    const node = cluster.node(0);
    const findings: Finding[] = [];
    const look = (place: string, text: string) => {
      assert.notEqual(text, '', place);
      findings.push(...findPlanted(Buffer.from(text), secretOnes).map((what) => ({ place, what })));
    };
    for (const line of [
      'secret ls --format json',
      'secret inspect word made',
      'secret inspect --pretty word',
      'config inspect conf',
      'service inspect on0 on1 on2',
      'service inspect --pretty on0',
      'service ps --no-trunc on0',
      'why on1',
      'info',
      'node inspect self --pretty',
    ]) {
      const { stdout, stderr } = await node.cli(...line.split(' '));
      look(line, stdout + stderr);
    }
    for (const each of cluster.nodes) {
      const { metricsAddress } = await each.node.info({});
      const port = metricsAddress.split(':').at(-1);
      const host = cluster.lan.hosts[cluster.nodes.indexOf(each)] as string;
      const script = `fetch("http://127.0.0.1:${port}/metrics").then(async (r) => console.log(await r.text()))`;
      look(
        'metrics',
        execFileSync('ip', ['netns', 'exec', host, process.execPath, '-e', script], { encoding: 'utf8' }),
      );
    }
    return findings;
  };

  test('a crash leaves no core file with a secret in it', async (t) => {
    const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8').trim();
    if (!/^core(\.%p)?$/.test(pattern)) return t.skip(`core files go elsewhere: ${pattern}`);
    const node = cluster.node(0);
    const coreFiles = () => readdirSync(node.directory).filter((name) => name.startsWith('core'));
    const dumpsCore = (pid: number) =>
      execFileSync('prlimit', ['--pid', String(pid), '--core=unlimited:unlimited']);
    dumpsCore(node.daemonPid);
    await node.killDaemon('SIGABRT');
    assert.deepEqual(coreFiles(), [], 'the daemon leaves none');
    await node.startDaemon();
    await eventually(() => control().getCluster({}), 30_000);
    const nextPid = defined(managerPidOf(node.daemonPid), 'a manager');
    dumpsCore(nextPid);
    process.kill(nextPid, 'SIGABRT');
    await eventually(() => coreFiles().length === 1, 10_000);
    await eventually(() => {
      const pid = managerPidOf(node.daemonPid);
      return pid !== undefined && pid !== nextPid;
    }, 10_000);
    assert.deepEqual(
      searchFiles(node.directory, planted, { except: [path.join(node.runDir, 'secrets')] }).findings,
      [],
    );
    await eventually(() => control().getCluster({}), 30_000);
    await removeAll();
  });
});

/** Whole numbers below `bound`, the same ones for a seed. */
function randomFrom(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (state >> 8) % bound;
  };
}
