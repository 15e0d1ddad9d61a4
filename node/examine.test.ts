import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { emptyGetRootsResponse, NodeCaService } from '../proto/generated/membership.ts';
import type { Finding, Severity } from '../proto/generated/node.ts';
import { RpcServer } from '../rpc/server.ts';
import { newIdentities, TEST_CLUSTER } from '../test/support/test-authority.ts';
import { examineHost, requireFit } from './examine.ts';
import { probeDataPort, probeFlush, probeKernel, probeManager } from './host-probes.ts';
import {
  judgeCgroup,
  judgeClock,
  judgeContainerd,
  judgeDataPort,
  judgeFirewall,
  judgeFlush,
  judgeKernel,
  judgeManagers,
  judgeMemory,
  judgeMtu,
  judgeRuntime,
  judgeSpace,
  type KernelFeature,
} from './judgements.ts';

const MINUTE_MS = 60_000;
const MIB = 2 ** 20;
const NODE_ROOT = process.getuid?.() === 0 ? false : 'needs root';

const works: Readonly<Record<KernelFeature, string>> = {
  overlayfs: '',
  'network namespaces': '',
  veth: '',
  nftables: '',
  bridge: '',
  vxlan: '',
};

const clock = (skewMs: number, roundTripMs = 0) => judgeClock({ manager: 'm:1', skewMs, roundTripMs });
const flush = (p99Ms: number, isLog: boolean) =>
  judgeFlush({ directory: '/data', problem: '', p99Ms, samples: 50, isLog });
const port = (holder: 'nobody' | 'kernel' | 'program' | 'unknown') =>
  judgeDataPort({ port: 4789, holder, problem: 'EACCES' });

test('each fact is judged by what it does to the cluster', () => {
  const cases: readonly (readonly [Finding, Severity, RegExp])[] = [
    [clock(0, 4), 'good', /agrees with that of m:1 within 2 ms/],
    [clock(-1_000), 'good', /within 1000 ms/],
    [clock(1_500), 'warning', /1500 ms ahead of that of m:1: logs/],
    [clock(-90_000), 'warning', /90 s behind that of m:1/],
    [clock(10 * MINUTE_MS), 'warning', /10 min ahead/],
    [clock(-10 * MINUTE_MS - 1), 'fatal', /10 min behind that of m:1: certificates are not valid/],
    // The answer took longer than the clocks differ: that proves nothing.
    [clock(3_000, 6_000), 'good', /within 6000 ms/],
    [clock(11 * MINUTE_MS, 4 * MINUTE_MS), 'warning', /9 min ahead/],
    [judgeMtu({ name: 'eth0', mtu: 1500, towards: 'm:1' }), 'good', /1450 inside overlay networks/],
    [judgeMtu({ name: 'eth0', mtu: 9000, towards: 'm:1' }), 'good', /8950 inside/],
    [judgeMtu({ name: 'wg0', mtu: 1420, towards: 'm:1' }), 'warning', /wg0, the way to m:1, .* 1370 inside/],
    [judgeCgroup({ version: 2, controllers: ['cpu', 'io', 'memory', 'pids'] }), 'good', /version 2/],
    [
      judgeCgroup({ version: 1, controllers: ['cpu', 'pids', 'devices'] }),
      'warning',
      /version 1 without memory/,
    ],
    [judgeCgroup({ version: 0, controllers: [] }), 'fatal', /no cgroup hierarchy/],
    [port('nobody'), 'good', /UDP port 4789 is free; whether UDP passes .* only a peer can tell/],
    [port('kernel'), 'good', /held by a VXLAN device/],
    [port('program'), 'warning', /held by another program/],
    [port('unknown'), 'warning', /cannot be tried: EACCES/],
    [flush(8.04, true), 'good', /8 ms \(p99 of 50\)/],
    [flush(100, true), 'good', /100 ms/],
    [flush(101, true), 'warning', /every change waits/],
    [flush(1_001, true), 'fatal', /loses its leadership after 1000 ms/],
    // A worker has no log: it hears of it before it is promoted.
    [flush(1_001, false), 'warning', /loses its leadership after 1000 ms/],
    [judgeSpace({ directory: '/data', freeBytes: 20 * 2 ** 30 }), 'good', /20 GiB free in \/data/],
    [judgeSpace({ directory: '/data', freeBytes: 1500 * MIB }), 'warning', /1.5 GiB free/],
    [judgeSpace({ directory: '/data', freeBytes: 100 * MIB }), 'fatal', /100 MiB free .* no room/],
    [judgeMemory({ totalBytes: 4096 * MIB, availableBytes: 1024 * MIB }), 'good', /1 GiB of 4 GiB/],
    [judgeMemory({ totalBytes: 512 * MIB, availableBytes: 100 * MIB }), 'warning', /100 MiB of 512 MiB/],
    [judgeContainerd('1.6.20~ds1'), 'good', /1\.6\.20/],
    [judgeContainerd('v2.1.0'), 'good', /2\.1\.0/],
    [judgeContainerd('1.5.9'), 'warning', /older than 1\.6/],
    [judgeContainerd('master'), 'warning', /"master" is a version nobody knows/],
    [judgeRuntime('crun 1.8.1'), 'good', /^crun 1\.8\.1$/],
    [judgeRuntime('runc 1.1.5'), 'good', /crun is not there/],
  ];

  for (const [finding, severity, text] of cases) {
    assert.equal(finding.severity, severity, finding.text);
    assert.match(finding.text, text);
    assert.equal(finding.remedy === '', severity === 'good', `${finding.text} has the wrong remedy`);
  }
});

test('one manager that answers is enough, none is fatal', () => {
  const lost = { address: 'b:1', problem: 'ECONNREFUSED' };

  const some = judgeManagers([{ address: 'a:1', problem: '' }, lost]);
  const none = judgeManagers([lost]);

  assert.deepEqual(
    some.map(({ severity }) => severity),
    ['good', 'warning'],
  );
  assert.equal(none[0]?.severity, 'fatal');
  assert.match(none[0]?.text ?? '', /b:1 cannot be reached: ECONNREFUSED/);
  assert.match(none[0]?.remedy ?? '', /firewalls pass TCP/);
  assert.deepEqual(judgeManagers([]), []);
});

test('a kernel feature that is missing is fatal unless only overlay networks want it', () => {
  const fatal: Record<string, Severity> = {};
  for (const feature of Object.keys(works) as KernelFeature[]) {
    const [first, missing, ...others] = judgeKernel({ ...works, [feature]: 'ENODEV' });

    assert.equal(first?.severity, 'good');
    assert.ok(!first?.text.includes(feature));
    assert.match(missing?.text ?? '', new RegExp(`^${feature}: ENODEV; `));
    assert.notEqual(missing?.remedy, '');
    assert.deepEqual(others, []);
    fatal[feature] = missing?.severity ?? 'good';
  }
  assert.deepEqual(fatal, {
    overlayfs: 'fatal',
    'network namespaces': 'fatal',
    veth: 'fatal',
    nftables: 'fatal',
    bridge: 'warning',
    vxlan: 'warning',
  });
  assert.equal(judgeKernel(works).length, 1);
});

test('a fatal finding refuses with its remedy, warnings are handed on', () => {
  const warnings = judgeFirewall(['Chain FORWARD drops.']);

  assert.deepEqual(requireFit([clock(0), ...warnings]), warnings);
  assert.throws(() => requireFit([...warnings, clock(60 * MINUTE_MS), flush(2_000, true)]), {
    code: 'failed-precondition',
    message: /^clock: 60 min ahead of that of m:1: /,
    hint: /NTP/,
  });
});

function temporaryFolder(): Disposable & { readonly directory: string } {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'tsw-examine-'));
  return { directory, [Symbol.dispose]: () => rmSync(directory, { recursive: true }) };
}

test('this kernel is tried and left as it was', { skip: NODE_ROOT }, async () => {
  using folder = temporaryFolder();
  const { directory } = folder;
  const state = () => ({
    links: Object.keys(os.networkInterfaces()),
    mounts: readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((row) => row.includes(directory)),
  });
  const before = state();

  const problems = await probeKernel({ dataRoot: directory, runDir: directory });

  const { bridge, vxlan, ...needed } = problems;
  // The suite makes containers with these.
  const { bridge: _bridge, vxlan: _vxlan, ...neededWork } = works;
  assert.deepEqual(needed, neededWork);
  for (const problem of [bridge, vxlan]) assert.match(problem, /^$|EOPNOTSUPP|ENODEV/);
  assert.deepEqual(state(), before);
  assert.deepEqual(readdirSync(directory), []);
});

test('a data root that cannot be written is a finding, not a failure', { skip: NODE_ROOT }, async () => {
  using folder = temporaryFolder();

  const flushed = await probeFlush('/proc');
  const { overlayfs, veth } = await probeKernel({ dataRoot: '/proc', runDir: folder.directory });

  const { severity, text } = judgeFlush({ ...flushed, isLog: false });
  assert.equal(severity, 'fatal');
  assert.match(text, /^\/proc cannot be written: ENOENT/);
  assert.match(overlayfs, /ENOENT/);
  assert.equal(veth, '');
});

test('a data root with any name holds an overlay', { skip: NODE_ROOT }, async () => {
  using folder = temporaryFolder();
  const dataRoot = path.join(folder.directory, 'a,b:c\\d');
  mkdirSync(dataRoot);

  assert.equal((await probeKernel({ dataRoot, runDir: folder.directory })).overlayfs, '');
});

test('flushes are timed and leave no file', async () => {
  using folder = temporaryFolder();

  const { p99Ms, samples } = await probeFlush(folder.directory);

  assert.ok(p99Ms > 0 && p99Ms < 60_000, `${p99Ms} ms`);
  assert.equal(samples, 50);
  assert.deepEqual(readdirSync(folder.directory), []);
});

test('a UDP port is free, or held by a program', async () => {
  const socket = createSocket('udp4').bind(0);
  await once(socket, 'listening');
  const { port: taken } = socket.address();

  const held = await probeDataPort(taken);
  socket.close();
  await once(socket, 'close');
  const free = await probeDataPort(taken);

  assert.equal(held.holder, 'program');
  assert.equal(free.holder, 'nobody');
});

/** A manager whose clock is this much ahead. */
async function startManager(aheadMs: number): Promise<AsyncDisposable & { readonly address: string }> {
  const identity = (await newIdentities(['m'])).get('m');
  const server = new RpcServer();
  server.add(NodeCaService, {
    getRoots: () => ({ ...emptyGetRootsResponse, nowMs: Date.now() + aheadMs }),
    issueCertificate: () => Promise.reject(new Error('nobody asks for one')),
  });
  assert.ok(identity !== undefined);
  const listening = { identity, clusterId: TEST_CLUSTER };
  const managerPort = await server.listenTls({ host: '127.0.0.1', port: 0 }, listening);
  return { address: `127.0.0.1:${managerPort}`, [Symbol.asyncDispose]: async () => server.stop() };
}

test('a manager tells its clock, and whoever does not answer why', async () => {
  await using manager = await startManager(-3_600_000);

  const { contact, clock: sample } = await probeManager(manager.address);
  const gone = await probeManager('127.0.0.1:1');
  const unknown = await probeManager('no-such-host.invalid:2377');

  assert.deepEqual(contact, { address: manager.address, problem: '' });
  const errorMs = Math.abs((sample?.skewMs ?? 0) - 3_600_000);
  assert.ok(sample !== undefined && errorMs <= sample.roundTripMs + 50, JSON.stringify(sample));
  assert.match(gone.contact.problem, /ECONNREFUSED/);
  assert.notEqual(unknown.contact.problem, '');
});

test('what listens but is no manager is told apart', async () => {
  const server = new RpcServer();
  const identity = (await newIdentities(['m'])).get('m');
  assert.ok(identity !== undefined);
  const listening = { identity, clusterId: TEST_CLUSTER };
  const other = await server.listenTls({ host: '127.0.0.1', port: 0 }, listening);

  const { contact } = await probeManager(`127.0.0.1:${other}`);
  server.stop();

  assert.match(contact.problem, /something answers, but not as a manager/);
});

test('the whole examination of this machine is plausible', { skip: NODE_ROOT }, async () => {
  using folder = temporaryFolder();
  await using manager = await startManager(0);

  const findings = await examineHost({
    managers: [manager.address],
    dataRoot: folder.directory,
    runDir: folder.directory,
    engine: { containerdVersion: '1.6.20', runtime: 'crun 1.8.1', cgroupVersion: '1', warnings: [] },
    networkWarnings: ['Chain FORWARD drops.'],
    isLog: true,
  });

  const subjects = new Set(findings.map(({ subject }) => subject));
  const all = 'clock cgroup containerd disk firewall kernel manager memory overlay runtime'.split(' ');
  assert.deepEqual([...subjects].sort(), all.sort());
  const textOf = (subject: string) => findings.find((finding) => finding.subject === subject)?.text ?? '';
  assert.match(textOf('manager'), /answers/);
  assert.match(textOf('clock'), /agrees/);
  assert.match(textOf('cgroup'), /^version [12] with the controllers cpu, memory, pids$/);
  assert.match(textOf('memory'), /[MG]iB of [\d.]+ [MG]iB available/);
  assert.match(textOf('disk'), /ms \(p99 of 50\)/);
});
