// Whole nodes whose disks are stolen, and whose certificates have expired while all of them were off.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Node } from '../../core/generated/objects.ts';
import { newUnlockKey } from '../../core/unlock-key.ts';
import { x509Tool } from '../../manager/ca/x509.ts';
import { CertificateFiles } from '../../node/certificate-files.ts';
import { logOpens } from '../../node/unlocking.ts';
import { eventually } from '../support/eventually.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { type RealNode, whyNoRealNode } from '../support/real-node.ts';
import { serviceSpec } from '../support/services.ts';

const skip = whyNoRealNode() ?? false;
const HOUR_MS = 3_600_000;

const isManager = ({ role, managerStatus, status }: Node) =>
  role === 'manager' && managerStatus?.voter === true && managerStatus.reachable && status.state === 'ready';

/** Files of a node in which one of these texts stands. */
function filesWith(node: RealNode, texts: readonly string[]): string[] {
  return readdirSync(node.dataRoot, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .filter((file) => {
      const content = readFileSync(file);
      return texts.some((text) => content.includes(text));
    });
}

const logOf = (node: RealNode) => path.join(node.dataRoot, 'manager', 'log');

describe('a locked cluster of three managers', { skip }, () => {
  let cluster: RealCluster;
  let key: string;
  const planted = `planted-${randomBytes(12).toString('hex')}`;

  before(async () => {
    cluster = await RealCluster.start('tsl', 3);
    key = await cluster.init({ autolock: true });
    await cluster.join(1, 'manager');
    await cluster.join(2, 'manager');
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const isOnDiskLocked = (node: RealNode) => () =>
    readFileSync(path.join(node.dataRoot, 'manager', 'log', 'keys.json'), 'utf8').includes('nonce') &&
    readFileSync(path.join(node.dataRoot, 'certificates', 'node.pem'), 'utf8').includes('ENCRYPTED');

  test('tells its key at the beginning, and has nothing readable on any disk', async () => {
    assert.match(key, /^SWMKEY-1-/);
    for (const node of cluster.nodes) await eventually(isOnDiskLocked(node));
    const spec = serviceSpec('secretive', { image: 'localhost/none', replicas: 0 });
    await cluster.node(1).control.createService({ spec: { ...spec, labels: { planted } } });
    const tokens = await cluster.node(0).control.getJoinTokens({});
    const secrets = [tokens.worker, tokens.manager].map((token) => token.split('-')[3] ?? '');
    for (const node of cluster.nodes) await node.stopDaemon();

    for (const node of cluster.nodes)
      assert.deepEqual(
        filesWith(node, [planted, 'BEGIN PRIVATE KEY', 'BEGIN EC PRIVATE', key, ...secrets]),
        [],
      );
  });

  test('waits for the key after a start, and takes no other', async () => {
    for (const node of cluster.nodes) await node.startDaemon();
    for (const node of cluster.nodes) assert.equal((await node.node.info({})).state, 'locked');
    await assert.rejects(
      cluster.node(0).node.unlock({ key: newUnlockKey(randomBytes) }),
      /not the unlock key/,
    );
    await assert.rejects(cluster.node(0).node.unlock({ key: 'open' }), /no unlock key/);
    await cluster.node(0).node.unlock({ key });
    await cluster.node(1).node.unlock({ key });

    const { services } = await eventually(() => cluster.node(0).control.listServices({}));
    assert.equal(services[0]?.service.spec.labels['planted'], planted);
  });

  test('a manager that sleeps through a change of the key opens with the one before, once', async () => {
    await cluster.node(0).control.updateCluster({
      version: 0,
      rotateWorkerToken: false,
      rotateManagerToken: false,
      rotateUnlockKey: true,
    });
    const { key: next } = await cluster.node(1).control.getUnlockKey({});
    assert.notEqual(next, key);

    const sleeper = cluster.node(2);
    await assert.rejects(sleeper.node.unlock({ key: next }), /unlock key/);
    await sleeper.node.unlock({ key });
    await cluster.until(2, isManager);
    const files = new CertificateFiles(sleeper.dataRoot);
    await eventually(() => typeof files.read(next) === 'object');
    assert.ok(await logOpens(logOf(sleeper), next), 'the log was first');
    await sleeper.stopDaemon();
    await sleeper.startDaemon();
    await assert.rejects(sleeper.node.unlock({ key }), /not the unlock key/);
    await sleeper.node.unlock({ key: next });
    await cluster.until(2, isManager);
  });

  test('starts by itself again when the lock is taken off', async () => {
    const { cluster: settings } = await cluster.node(0).control.getCluster({});
    await cluster.node(0).control.updateCluster({
      version: settings.meta.version,
      spec: { ...settings.spec, autolock: false },
      rotateWorkerToken: false,
      rotateManagerToken: false,
      rotateUnlockKey: false,
    });
    for (const node of cluster.nodes) {
      const files = new CertificateFiles(node.dataRoot);
      await eventually(() => typeof files.read(undefined) === 'object');
      assert.ok(await logOpens(logOf(node), undefined), 'the log was first');
    }
    await cluster.node(2).stopDaemon();
    await cluster.node(2).startDaemon();
    await cluster.until(2, isManager);
  });
});

describe('a cluster that was off for longer than its certificates live', { skip }, () => {
  let cluster: RealCluster;

  before(async () => {
    cluster = await RealCluster.start('tse', 3);
    await cluster.init();
    await cluster.join(1, 'manager');
    await cluster.join(2, 'worker');
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  test('comes back: managers by themselves, workers when an operator lets them', async () => {
    const { cluster: settings } = await cluster.node(0).control.getCluster({});
    // A root whose key is known here.
    const root = await x509Tool.createRoot({ clusterId: settings.id, nowMs: Date.now() - HOUR_MS });
    await cluster.node(0).control.rotateAuthority({
      certificate: root.certificatePem,
      key: root.keyPem,
      externalCas: [],
      certificateLifeMs: 0,
    });
    await eventually(
      async () => (await cluster.node(0).control.getAuthority({})).rotation === undefined,
      30_000,
    );
    const nodes = await Promise.all([0, 1, 2].map((position) => cluster.find(position)));
    for (const node of cluster.nodes) await node.stopDaemon();
    for (const [position, { id, role }] of nodes.entries()) {
      const { keyPem, requestPem } = await x509Tool.createKeyAndRequest();
      const expired = await x509Tool.issue({
        requestPem,
        root,
        subject: { nodeId: id, role, clusterId: settings.id },
        nowMs: Date.now() - HOUR_MS,
        lifeMs: HOUR_MS / 2,
      });
      const folder = path.join(cluster.node(position).dataRoot, 'certificates');
      writeFileSync(path.join(folder, 'node.pem'), expired + keyPem);
    }

    for (const node of cluster.nodes) await node.startDaemon();
    for (const position of [0, 1]) await cluster.until(position, isManager, 1);
    const worker = cluster.node(2);
    const why = await eventually(async () => (await worker.node.info({})).error || undefined);
    assert.match(why, /certificate .* has expired/);

    const { cluster: now } = await cluster.node(0).control.getCluster({});
    await cluster.node(0).control.updateCluster({
      version: now.meta.version,
      spec: { ...now.spec, acceptExpiredUntilMs: Date.now() + HOUR_MS },
      rotateWorkerToken: false,
      rotateManagerToken: false,
      rotateUnlockKey: false,
    });
    await cluster.until(
      2,
      ({ status, description }) => status.state === 'ready' && description.trust.expiresAtMs > Date.now(),
    );
    await eventually(async () => (await worker.node.info({})).error === '');
  });
});
