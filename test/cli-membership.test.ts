// How nodes come into a cluster, change and go, from the command line: the real program in its own process, against sockets
// of this one.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { defaultClusterSpec } from '../core/defaults.ts';
import { SwarmError } from '../core/errors.ts';
import {
  type ClusterSpec,
  emptyCluster,
  emptyManagerStatus,
  emptyNode,
  type Node,
} from '../core/generated/objects.ts';
import { x509Tool } from '../manager/ca/x509.ts';
import type { GetAuthorityResponse } from '../proto/generated/control.ts';
import { emptyInfoResponse } from '../proto/generated/node.ts';
import { rootDigest } from '../rpc/certificates.ts';
import { CliCluster } from './support/cli-cluster.ts';
import { CliNode } from './support/cli-node.ts';

const TOKEN = `SWMTKN-1-${'1'.repeat(50)}-${'a'.repeat(25)}`;
const KEY = `SWMKEY-1-${'A'.repeat(43)}`;
const NOT_A_MANAGER =
  "Error: This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.\n";

const tokens = { worker: `${TOKEN}w`, manager: `${TOKEN}m`, addresses: ['10.0.0.1:2377', '10.0.0.2:2377'] };

function aNode(hostname: string, change: Partial<Node> = {}): Node {
  return {
    ...emptyNode,
    id: `id-${hostname}`,
    description: { ...emptyNode.description, hostname },
    ...change,
  };
}

async function newRoot(): Promise<string> {
  return (await x509Tool.createRoot({ clusterId: 'cluster', nowMs: Date.now() })).certificatePem;
}

const digest = (pem: string) => Buffer.from(rootDigest(pem)).toString('hex');

test('init sends what was said and tells how others join', async () => {
  await using cli = await CliNode.start({
    node: { init: () => ({ nodeId: 'n1', unlockKey: '' }) },
    control: { getJoinTokens: () => tokens },
  });
  await writeFile(path.join(cli.directory, 'ca.pem'), await newRoot());

  const args = '--advertise-addr eth0:2378 --listen-addr 0.0.0.0:2378 --data-path-addr 10.1.0.1'.split(' ');
  const more = '--data-path-port 5000 --default-addr-pool 10.1.0.0/16,10.2.0.0/16 --availability drain'.split(
    ' ',
  );
  const spec =
    '--default-addr-pool 10.3.0.0/16 --task-history-limit 0 --cert-expiry 48h --max-snapshots 2'.split(' ');
  const ca = ['--external-ca', 'protocol=cfssl,url=https://ca:8888/sign,cacert=ca.pem,profile=node'];
  const { code, stdout, stderr } = await cli.run(['init', ...args, ...more, ...spec, ...ca], {
    workdir: cli.directory,
  });

  assert.equal(code, 0, stderr);
  assert.equal(
    stdout,
    `Swarm initialized: current node (n1) is now a manager.

To add a worker to this swarm, run the following command:

    tsswarm join --token ${tokens.worker} 10.0.0.1:2377

To add a manager to this swarm, run 'tsswarm join-token manager' and follow the instructions.

`,
  );
  const [{ request } = { request: undefined }] = cli.asked;
  const { cluster, ...rest } = request as { cluster: ClusterSpec };
  assert.deepEqual(rest, {
    advertiseAddress: 'eth0:2378',
    listenAddress: '0.0.0.0:2378',
    dataPathAddress: '10.1.0.1',
    availability: 'drain',
    clusterFields: ['taskHistoryLimit', 'maxSnapshots', 'certificateLifeMs', 'externalCas'],
    network: {
      addressPools: ['10.1.0.0/16', '10.2.0.0/16', '10.3.0.0/16'],
      addressPoolMaskLength: 0,
      dataPathPort: 5000,
    },
    forceNewCluster: false,
  });
  assert.equal(cluster.certificateLifeMs, 48 * 3_600_000);
  assert.equal(cluster.maxSnapshots, 2);
  const [externalCa] = cluster.externalCas;
  assert.match(externalCa?.caCertificate ?? '', /BEGIN CERTIFICATE/);
  assert.deepEqual(externalCa?.options, { profile: 'node' });
});

test('init with autolock prints the key and says to keep it', async () => {
  await using cli = await CliNode.start({
    node: { init: () => ({ nodeId: 'n1', unlockKey: KEY }) },
    control: { getJoinTokens: () => tokens },
  });

  const { stdout } = await cli.run(['swarm', 'init', '--autolock']);

  assert.match(
    stdout,
    /run the `tsswarm unlock`\ncommand and provide the following key:\n\n {4}SWMKEY-1-A+\n/,
  );
  assert.match(stdout, /store this key in a password manager/);
  assert.match(JSON.stringify(cli.asked), /"clusterFields":\["autolock"\]/);
});

test('join says as what, and what of the machine will hurt', async () => {
  const findings = [
    { severity: 'good', subject: 'cgroup', text: 'version 2', remedy: '' },
    { severity: 'warning', subject: 'clock', text: '3 s ahead', remedy: 'Let NTP set it.' },
  ] as const;
  await using cli = await CliNode.start({
    node: { join: () => ({ nodeId: 'n2', role: 'manager', findings }) },
  });

  const { code, stdout, stderr } = await cli.run([
    'join',
    '--token',
    TOKEN,
    '--label',
    'disk=ssd',
    '--availability',
    'pause',
    '10.0.0.1',
    '[fd00::1]:99',
  ]);

  assert.equal(code, 0, stderr);
  assert.equal(stdout, 'This node joined a swarm as a manager.\n');
  assert.equal(stderr, '⚠ clock: 3 s ahead\n    → Let NTP set it.\n');
  assert.deepEqual(cli.asked[0]?.request, {
    token: TOKEN,
    managers: ['10.0.0.1:2377', '[fd00::1]:99'],
    listenAddress: '',
    advertiseAddress: '',
    dataPathAddress: '',
    availability: 'pause',
    labels: { disk: 'ssd' },
  });
});

test('join tokens are shown as a command to paste, or bare, and rotated one by one', async () => {
  await using cli = await CliCluster.start();

  const worker = (await cli.run(['join-token', '-q', 'worker'])).stdout;
  const told = await cli.run(['swarm', 'join-token', 'worker']);
  const rotated = await cli.run(['join-token', '--rotate', 'worker']);
  const fresh = (await cli.run(['join-token', '--quiet', 'worker'])).stdout;
  const manager = (await cli.run(['join-token', '--quiet', 'manager'])).stdout;

  assert.match(worker, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}\n$/);
  assert.ok(told.stdout.includes(`\n    tsswarm join --token ${worker.trim()} 127.0.0.1:`), told.stdout);
  assert.match(rotated.stdout, /^Successfully rotated worker join token\.\n\nTo add a worker/);
  assert.ok(rotated.stdout.includes(fresh.trim()));
  assert.notEqual(fresh, worker);
  assert.notEqual(manager, worker);
});

test('cluster update changes what was said and nothing else', async () => {
  await using cli = await CliCluster.start();
  const before = (await cli.cluster.control.getCluster({})).cluster.spec;

  const updated = await cli.run(
    'cluster update --task-history-limit 7 --dead-manager-after 10m --accept-expired 1h'.split(' '),
  );
  const spec = async () => (await cli.cluster.control.getCluster({})).cluster.spec;
  const { acceptExpiredUntilMs, ...after } = await spec();
  await cli.run(['swarm', 'update', '--accept-expired', '0']);

  assert.equal(updated.stdout, 'Swarm updated.\n', updated.stderr);
  const { acceptExpiredUntilMs: _, ...unchanged } = before;
  assert.deepEqual(after, { ...unchanged, taskHistoryLimit: 7, deadManagerAfterMs: 600_000 });
  assert.ok(Math.abs(acceptExpiredUntilMs - Date.now() - 3_600_000) < 60_000);
  assert.equal((await spec()).acceptExpiredUntilMs, 0);
});

test('a lock comes with its key, which can be shown and changed until the lock is off', async () => {
  await using cli = await CliCluster.start();

  const none = await cli.run(['unlock-key']);
  const locked = await cli.run(['cluster', 'update', '--autolock=true']);
  const quiet = await cli.run(['unlock-key', '-q']);
  const again = await cli.run(['cluster', 'update', '--autolock']);
  const rotated = await cli.run(['swarm', 'unlock-key', '--rotate']);
  const off = await cli.run(['cluster', 'update', '--autolock=false']);
  const refused = await cli.run(['unlock-key', '--rotate']);

  assert.equal(none.code, 1);
  assert.match(none.stderr, /no unlock key is set/);
  assert.match(quiet.stdout, /^SWMKEY-1-\S{43}\n$/);
  assert.ok(locked.stdout.startsWith('Swarm updated.\n') && locked.stdout.includes(quiet.stdout));
  assert.equal(again.stdout, 'Swarm updated.\n');
  assert.match(rotated.stdout, /^Successfully rotated manager unlock key\.\n\n/);
  assert.ok(!rotated.stdout.includes(quiet.stdout));
  assert.equal(off.stdout, 'Swarm updated.\n');
  assert.equal(refused.code, 1);
});

test('unlock takes the key from the first line of what is piped in', async () => {
  await using cli = await CliNode.start({
    node: { info: () => ({ ...emptyInfoResponse, state: 'locked' }), unlock: () => ({}) },
  });

  const wrong = await cli.run(['unlock'], { stdin: 'SWMKEY-1-short\n' });
  const nothing = await cli.run(['unlock']);
  const right = await cli.run(['swarm', 'unlock'], { stdin: ` ${KEY} \nmore\n` });

  assert.equal(right.code, 0, right.stderr);
  assert.equal(right.stdout, '');
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /^Error: unlock key: .*43 characters\nGive the whole key/);
  assert.equal(nothing.code, 1);
  assert.deepEqual(cli.asked, [{ method: 'unlock', request: { key: KEY } }]);
});

test('unlock asks at a terminal and does not show what is typed', async () => {
  await using cli = await CliNode.start({
    node: { info: () => ({ ...emptyInfoResponse, state: 'locked' }), unlock: () => ({}) },
  });
  const program = path.join(import.meta.dirname, '..', 'bin', 'tsswarm.ts');
  const host = `unix://${path.join(cli.directory, 'control.sock')}`;

  // script(1) gives the program a terminal of its own.
  const command = `${process.execPath} -- ${program} --host ${host} unlock`;
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const shown = text(child.stdout);
  child.stdout.once('data', () => child.stdin.write(`x\u007f${KEY}\r`));
  const code = await new Promise((resolve) => child.once('close', resolve));

  assert.equal((await shown).replaceAll('\r', ''), 'Enter unlock key: \n');
  assert.equal(code, 0);
  assert.deepEqual(cli.asked, [{ method: 'unlock', request: { key: KEY } }]);
});

test('only a locked node is unlocked', async () => {
  const states = [
    ['inactive', /this node is not part of a swarm/],
    ['active', /swarm is not locked/],
  ] as const;
  for (const [state, message] of states) {
    await using cli = await CliNode.start({ node: { info: () => ({ ...emptyInfoResponse, state }) } });

    const { code, stderr } = await cli.run(['unlock'], { stdin: `${KEY}\n` });

    assert.equal(code, 1);
    assert.match(stderr, message);
    assert.deepEqual(cli.asked, []);
  }
});

test('ca prints the root, and shows a rotation until all nodes are over', async () => {
  const [old, next] = [await newRoot(), await newRoot()];
  const rotation = { nextCertificate: next, nodes: 2, waitingFor: ['b (down)'] };
  const story: GetAuthorityResponse[] = [
    { certificate: old, rotation: { ...rotation, nodesDone: 0, waitingFor: ['a (ready)', 'b (down)'] } },
    { certificate: old, rotation: { ...rotation, nodesDone: 1 } },
    { certificate: next },
  ];
  await using cli = await CliNode.start({
    control: {
      getAuthority: () =>
        (story.length > 1 && cli.asked.length > 0 ? story.shift() : story[0]) ?? { certificate: '' },
      rotateAuthority: () => ({ certificate: next }),
    },
  });

  const shown = await cli.run(['ca']);
  const rotated = await cli.run(['swarm', 'ca', '--rotate', '--cert-expiry', '24h']);
  const detached = await cli.run(['ca', '--rotate', '-d']);
  const quiet = await cli.run(['ca', '--rotate', '-q']);

  assert.equal(shown.stdout, old);
  assert.equal(rotated.code, 0, rotated.stderr);
  assert.match(
    rotated.stdout,
    /^rotated TLS certificates: {2}\[> {49}\] 0\/2 nodes\nwaiting for: a \(ready\), b/,
  );
  assert.match(rotated.stdout, /\[={24}> {25}\] 1\/2 nodes\nwaiting for: b \(down\)\n-----BEGIN/);
  assert.ok(rotated.stdout.endsWith(next));
  assert.equal(detached.stdout, '');
  assert.equal(quiet.stdout, next);
  assert.deepEqual(cli.asked[0], {
    method: 'rotateAuthority',
    request: { certificate: '', key: '', externalCas: [], certificateLifeMs: 24 * 3_600_000 },
  });
});

test('an interrupted rotation goes on without its watcher, and one that was replaced says so', async () => {
  const [old, next, other] = [await newRoot(), await newRoot(), await newRoot()];
  let nextCertificate = next;
  await using cli = await CliNode.start({
    control: {
      getAuthority: () => ({
        certificate: old,
        rotation: { nextCertificate, nodes: 1, nodesDone: 0, waitingFor: [] },
      }),
      rotateAuthority: () => ({ certificate: next }),
    },
  });
  const interrupt = new AbortController();

  const stopped = await cli.runHere(['ca', '--rotate'], {
    catchInterrupt: () => interrupt.signal,
    out: async () => interrupt.abort(),
  });
  nextCertificate = other;
  const replaced = await cli.runHere(['ca', '--rotate']);

  assert.equal(stopped.code, 0);
  assert.match(stopped.stderr, /Operation continuing in background/);
  assert.equal(replaced.code, 1);
  assert.match(replaced.stderr, /another rotation has taken the place of this one/);
});

test('promote and demote wait until the cluster has carried them out', async () => {
  const managerStatus = { ...emptyManagerStatus, voter: true };
  const nodes = new Map([
    [
      'a',
      aNode('a', { role: 'manager', spec: { ...emptyNode.spec, desiredRole: 'manager' }, managerStatus }),
    ],
    ['b', aNode('b')],
  ]);
  let looks = 0;
  await using cli = await CliNode.start({
    control: {
      listNodes: () => {
        // The wish comes true at the third look after it.
        const isDue = cli.asked.length > 0 && ++looks % 3 === 0;
        for (const [name, node] of nodes)
          if (isDue) nodes.set(name, { ...node, role: node.spec.desiredRole, managerStatus });
        return { nodes: [...nodes.values()] };
      },
      updateNode: ({ nodeId, spec }) => {
        const name = nodeId.replace('id-', '');
        const node = { ...(nodes.get(name) ?? emptyNode), spec };
        nodes.set(name, node);
        return { node };
      },
    },
  });

  const promoted = await cli.run(['node', 'promote', 'a', 'b', 'nosuch']);
  const role = nodes.get('b')?.role;
  const demoted = await cli.run(['node', 'demote', 'b']);
  const detached = await cli.run(['node', 'promote', '--detach', 'b']);

  assert.equal(promoted.stdout, 'Node a is already a manager.\nNode b promoted to a manager in the swarm.\n');
  assert.equal(promoted.stderr, 'Error: no such node: nosuch\n');
  assert.equal(promoted.code, 1);
  assert.equal(role, 'manager');
  assert.equal(demoted.stdout, 'Manager b demoted in the swarm.\n', demoted.stderr);
  assert.equal(detached.stdout, 'Node b promoted to a manager in the swarm.\n');
});

test('a role that does not come gives its reason after a minute', async () => {
  const spec = { ...emptyNode.spec, desiredRole: 'manager' } as const;
  const learner = { ...emptyManagerStatus, address: '10.0.0.2:2377' };
  const cases: readonly (readonly [Partial<Node>, string])[] = [
    [{ spec, roleMessage: 'node b is down' }, 'node b is down'],
    [{ spec, role: 'manager' }, 'its manager has not joined the others yet'],
    [
      { spec, role: 'manager', managerStatus: learner },
      'its manager is still taking up what the others know',
    ],
  ];
  for (const [change, reason] of cases) {
    await using cli = await CliNode.start({
      control: { listNodes: () => ({ nodes: [aNode('b', change)] }) },
    });
    let nowMs = 0;

    const { code, stdout, stderr } = await cli.runHere(['node', 'promote', 'b'], {
      nowMs: () => {
        nowMs += 20_000;
        return nowMs;
      },
    });

    assert.equal(code, 1);
    assert.equal(stdout, '');
    assert.ok(stderr.startsWith(`Error: node id-b is not a manager after 60 s: ${reason}\nThe wish`), stderr);
  }
});

test('who demotes the manager at hand loses it and is told the truth', async () => {
  let isManager = true;
  const spec = { ...emptyNode.spec, desiredRole: 'manager' } as const;
  await using cli = await CliNode.start({
    node: { info: () => ({ ...emptyInfoResponse, state: 'active', nodeId: 'id-a', manager: isManager }) },
    control: {
      listNodes: async () => {
        if (cli.asked.length > 0) {
          isManager = false;
          await cli.stopManager();
        }
        return { nodes: [aNode('a', { role: 'manager', spec })] };
      },
      updateNode: ({ spec: asked }) => ({ node: aNode('a', { spec: asked }) }),
    },
  });

  const demoted = await cli.run(['node', 'demote', 'self']);

  assert.equal(demoted.stdout, 'Manager self demoted in the swarm.\n', demoted.stderr);
  assert.equal(demoted.code, 0);
});

test('a leader that changes meanwhile is waited for', async () => {
  const story = ['worker', 'gone', 'gone', 'manager'];
  const desired = { ...emptyNode.spec, desiredRole: 'manager' } as const;
  await using cli = await CliNode.start({
    control: {
      listNodes: () => {
        const role = story.shift() ?? 'manager';
        if (role === 'gone') throw new SwarmError('unavailable', 'there is no leader');
        const managerStatus = { ...emptyManagerStatus, voter: true };
        return { nodes: [aNode('b', { spec: desired, role: role as Node['role'], managerStatus })] };
      },
    },
  });

  const { code, stdout, stderr } = await cli.run(['node', 'promote', 'b']);

  assert.equal(code, 0, stderr);
  assert.equal(stdout, 'Node b promoted to a manager in the swarm.\n');
});

test('node update changes role and address, node rm says why it does not remove', async () => {
  await using cli = await CliNode.start({
    control: {
      listNodes: () => ({ nodes: [aNode('b')] }),
      updateNode: ({ spec }) => ({ node: aNode('b', { spec }) }),
      removeNode: ({ node, force }) => {
        if (force) return { nodeId: node };
        throw new SwarmError('failed-precondition', `node ${node} is not down`, { hint: 'Use --force.' });
      },
    },
  });

  const updated = await cli.run('node update --role manager --advertise-addr 10.0.0.9 b'.split(' '));
  const kept = await cli.run(['node', 'rm', 'b']);
  const removed = await cli.run(['node', 'remove', '-f', 'b', 'c']);

  assert.equal(updated.stdout, 'b\n', updated.stderr);
  const [{ request } = { request: {} }] = cli.asked;
  const { spec, address } = request as { spec: Node['spec']; address: string };
  assert.equal(spec.desiredRole, 'manager');
  assert.equal(address, '10.0.0.9:2377');
  assert.equal(kept.code, 1);
  assert.equal(kept.stderr, 'Error: node b is not down\nUse --force.\n');
  assert.equal(removed.stdout, 'b\nc\n');
});

test('nodes show how they stand as managers and which root their certificates have', async () => {
  const [old, next] = [await newRoot(), await newRoot()];
  const trust = { issuer: digest(next), roots: [digest(old), digest(next)], expiresAtMs: Date.now() + 1e6 };
  const status = { leader: false, reachable: true, voter: true, address: '10.0.0.1:2377' };
  const withTrust = (name: string, change: object, node: Partial<Node> = {}) => ({
    ...aNode(name, node),
    description: {
      ...emptyNode.description,
      hostname: name,
      trust: { ...trust, role: 'worker' as const, ...change },
    },
  });
  const waiting = { ...emptyNode.spec, desiredRole: 'manager' } as const;
  await using cli = await CliNode.start({
    control: {
      getAuthority: () => ({
        certificate: old,
        rotation: { nextCertificate: next, nodes: 5, nodesDone: 1, waitingFor: [] },
      }),
      listNodes: () => ({
        nodes: [
          withTrust('a', {}, { managerStatus: { ...status, leader: true } }),
          withTrust('b', { issuer: digest(old) }, { managerStatus: status }),
          withTrust('c', { expiresAtMs: 1 }, { managerStatus: { ...status, reachable: false } }),
          withTrust('d', { roots: [digest(old)] }, { spec: waiting, roleMessage: 'it is down' }),
          aNode('e'),
        ],
      }),
    },
  });

  const list = await cli.run(['node', 'ls', '--format', '{{.Hostname}} {{.ManagerStatus}}/{{.TLSStatus}}']);
  const pretty = await cli.run(['node', 'inspect', '--pretty', 'd']);
  const json = await cli.run(['node', 'inspect', 'a', 'e']);

  assert.deepEqual(list.stdout.split('\n').slice(0, 5), [
    'a Leader/Ready',
    'b Reachable/Needs Rotation',
    'c Unreachable/Needs Rotation',
    'd /Needs Rotation',
    'e /Unknown',
  ]);
  assert.match(pretty.stdout, /\n Role:\t+Worker, to become manager \(it is down\)\n/);
  assert.match(pretty.stdout, /\nTLS Info:\n Status:\t+Needs Rotation\n Certificate Expires:/);
  const [a, e] = JSON.parse(json.stdout);
  const { TrustRoot, CertIssuerSubject, CertIssuerPublicKey } = a.Description.TLSInfo;
  assert.equal(TrustRoot, old + next);
  const subject = Buffer.from(CertIssuerSubject, 'base64').toString('latin1');
  assert.ok(subject.startsWith('0') && subject.endsWith('swarm-ca'), JSON.stringify(subject));
  assert.match(CertIssuerPublicKey, /^MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE/);
  assert.equal(e.Description.TLSInfo, undefined);
  assert.deepEqual(a.ManagerStatus, { Leader: true, Reachability: 'reachable', Addr: '10.0.0.1:2377' });
});

test('on a worker what needs a manager is refused in words that say where to go', async () => {
  await using cli = await CliNode.start({
    node: {
      info: () => ({
        ...emptyInfoResponse,
        state: 'active',
        nodeId: 'w1',
        clusterId: 'c1',
        advertiseAddress: '10.0.0.5:2377',
        managers: ['10.0.0.2:2377', '10.0.0.1:2377'],
      }),
    },
  });

  const commands = ['node ls', 'service ls', 'join-token worker', 'ca', 'cluster update --max-snapshots 1'];
  const answers = await Promise.all(commands.map((command) => cli.run(command.split(' '))));
  const info = await cli.run(['info']);

  for (const { code, stderr } of answers)
    assert.deepEqual({ code, stderr }, { code: 1, stderr: NOT_A_MANAGER });
  assert.equal(info.code, 0, info.stderr);
  assert.match(
    info.stdout,
    /\nSwarm: active\n NodeID: w1\n Is Manager: false\n ClusterID: c1\n Node Address: 10\.0\.0\.5\n Manager Addresses:\n {2}10\.0\.0\.1:2377\n {2}10\.0\.0\.2:2377\n/,
  );
});

test('a node without manager says which of the reasons it is', async () => {
  const cases = [
    ['inactive', {}, /this node is not part of a cluster\nUse "tsswarm init" .* or "tsswarm join"/],
    ['locked', { manager: true }, /needs to be unlocked before it can be used. Please use "tsswarm unlock"/],
    ['pending', {}, /just becoming a member/],
    ['error', { manager: true, error: 'its log is damaged' }, /does not answer: its log is damaged\n/],
  ] as const;
  for (const [state, more, message] of cases) {
    await using cli = await CliNode.start({
      node: { info: () => ({ ...emptyInfoResponse, state, ...more }) },
    });

    const { code, stderr } = await cli.run(['node', 'ls']);

    assert.equal(code, 1, state);
    assert.match(stderr, message);
  }
});

test('info on a manager shows how the whole cluster is set', async () => {
  const root = await newRoot();
  const spec = { ...defaultClusterSpec, autolock: true, deadManagerAfterMs: 3_600_000 };
  const network = { addressPools: ['10.0.0.0/8'], addressPoolMaskLength: 24, dataPathPort: 4789 };
  await using cli = await CliNode.start({
    control: {
      getCluster: () => ({ cluster: { ...emptyCluster, spec, network }, nodes: 5, managers: 3 }),
      getAuthority: () => ({ certificate: root }),
    },
  });

  const shown = await cli.run(['info']);
  const json = await cli.run(['info', '--format', '{{json .Swarm}}']);

  for (const line of [
    ' Managers: 3\n Nodes: 5\n Default Address Pool: 10.0.0.0/8\n SubnetSize: 24\n Data Path Port: 4789\n',
    '  Task History Retention Limit: 5\n Raft:\n  Snapshot Interval: 10000\n',
    ' Dispatcher:\n  Heartbeat Period: 5 seconds\n CA Configuration:\n  Expiry Duration: 3 months\n',
    ' Autolock Managers: true\n Root Rotation In Progress: false\n',
    ' Dead Managers Removed After: About an hour\n',
  ])
    assert.ok(shown.stdout.includes(line), `${line} in ${shown.stdout}`);
  const { Managers, Cluster } = JSON.parse(json.stdout);
  assert.equal(Managers, 3);
  assert.equal(Cluster.Spec.CAConfig.NodeCertExpiry, 90 * 24 * 3_600 * 1e9);
  assert.deepEqual(Cluster.TLSInfo, { TrustRoot: root });
});

test('leave asks the daemon and says so', async () => {
  await using cli = await CliNode.start({ node: { leave: () => ({}) } });

  const { stdout } = await cli.run(['leave', '-f']);

  assert.equal(stdout, 'Node left the swarm.\n');
  assert.deepEqual(cli.asked, [{ method: 'leave', request: { force: true } }]);
});

test('doctor shows every finding with its way out, and fails when one is fatal', async () => {
  const warning = {
    severity: 'warning',
    subject: 'mtu',
    text: 'wg0 takes 1420 bytes',
    remedy: 'Raise it.',
  } as const;
  const fatal = { severity: 'fatal', subject: 'clock', text: '1 h behind', remedy: 'Set it.' } as const;
  const fine = { severity: 'good', subject: 'runtime', text: 'crun 1.8.1', remedy: '' } as const;
  await using cli = await CliNode.start({
    node: {
      examine: ({ managers }) => ({ findings: [fine, warning, ...(managers.length > 0 ? [fatal] : [])] }),
    },
  });

  const fit = await cli.run(['doctor']);
  const unfit = await cli.run(['doctor', '10.0.0.1', 'b:99'], { environment: { LANG: 'C' } });
  const json = await cli.run(['doctor', '--format', 'json', '10.0.0.1']);
  const template = await cli.run(['doctor', '--format', '{{.Severity}} {{.Subject}}']);

  assert.deepEqual(fit, {
    code: 0,
    stdout: '✔ runtime: crun 1.8.1\n⚠ mtu: wg0 takes 1420 bytes\n    → Raise it.\n',
    stderr: '',
  });
  assert.equal(unfit.code, 1);
  assert.match(unfit.stdout, /\n\[!!\] clock: 1 h behind\n {4}-> Set it\.\n$/);
  assert.deepEqual(cli.asked[1], { method: 'examine', request: { managers: ['10.0.0.1:2377', 'b:99'] } });
  assert.equal(json.code, 1);
  assert.deepEqual(JSON.parse(json.stdout.split('\n')[1] ?? ''), {
    Severity: 'warning',
    Subject: 'mtu',
    Text: 'wg0 takes 1420 bytes',
    Remedy: 'Raise it.',
  });
  assert.equal(template.stdout, 'good runtime\nwarning mtu\n');
});

test('what the daemon cannot do is told in its own words, not as if the node were alone', async () => {
  await using cli = await CliNode.start({
    node: {
      info: () => ({ ...emptyInfoResponse, state: 'inactive' }),
      join: () => {
        throw new SwarmError('unavailable', 'the manager at 10.0.0.1:2377 cannot be reached', {
          hint: 'See that it runs.',
        });
      },
    },
  });

  const { code, stderr } = await cli.run(['join', '--token', TOKEN, '10.0.0.1']);

  assert.equal(code, 1);
  assert.equal(stderr, 'Error: the manager at 10.0.0.1:2377 cannot be reached\nSee that it runs.\n');
});

test('what is malformed is refused by name and nothing is sent', async () => {
  await using cli = await CliNode.start({ control: {} });
  await writeFile(path.join(cli.directory, 'text'), 'no certificate');
  await writeFile(path.join(cli.directory, 'ca.pem'), await newRoot());
  await writeFile(
    path.join(cli.directory, 'other.pem'),
    (await x509Tool.createRoot({ clusterId: 'c', nowMs: Date.now() })).keyPem,
  );
  const cases: readonly (readonly [number, RegExp, string])[] = [
    [125, /"--advertise-addr" flag: must be an IP address or an interface/, 'init --advertise-addr a:b:c'],
    [125, /"--advertise-addr" flag: must be/, 'join --advertise-addr 10.0.0.1:70000 h:1'],
    [125, /"--listen-addr" flag: must be/, 'init --listen-addr 10.0.0.1/24'],
    [125, /"--data-path-addr" flag: must be .* without a port/, 'init --data-path-addr 10.0.0.1:4789'],
    [125, /"--data-path-port" flag: must be a whole number/, 'init --data-path-port http'],
    [1, /data-path-port: must be 1024 to 49151/, 'init --data-path-port 80'],
    [1, /default-addr-pool: "10.0.0.0" is no network/, 'init --default-addr-pool 10.0.0.0'],
    [1, /default-addr-pool-mask-length: must be/, 'init --default-addr-pool-mask-length 0'],
    [1, /default-addr-pool: 10.0.0.0\/26 is smaller/, 'init --default-addr-pool 10.0.0.0/26'],
    [125, /"--availability" flag: must be "active", "pause" or "drain"/, 'init --availability gone'],
    [125, /"--cert-expiry" flag: missing unit/, 'init --cert-expiry 90'],
    [1, /cert-expiry: must be an hour or more/, 'init --cert-expiry 10m'],
    [125, /"--external-ca" flag: .*protocol.* is missing/, 'init --external-ca url=https://ca/sign'],
    [125, /"--external-ca" flag: .*"ftp:/, 'init --external-ca protocol=cfssl,url=ftp://ca'],
    [1, /external-ca cacert: ENOENT/, 'init --external-ca protocol=cfssl,url=https://ca/sign,cacert=none'],
    [
      1,
      /cacert: text has no certificate in PEM/,
      'init --external-ca protocol=cfssl,url=https://ca/sign,cacert=text',
    ],
    [125, /"--task-history-limit" flag: must be a whole number/, 'init --task-history-limit many'],
    [1, /dispatcher-heartbeat: must be 100 ms or more/, 'init --dispatcher-heartbeat 1ms'],
    [1, /snapshot-interval: must be 1 or more/, 'cluster update --snapshot-interval 0'],
    [1, /--autolock may not be combined with --force-new-cluster/, 'init --force-new-cluster --autolock'],
    [1, /--token is missing/, 'join 10.0.0.1:2377'],
    [1, /token: this is no join token: its digest has 3/, 'join --token SWMTKN-1-abc-secret 10.0.0.1:2377'],
    [1, /token: this is no join token: it does not begin/, 'join --token secret 10.0.0.1:2377'],
    [1, /HOST:PORT: "10.0.0.1:x" must be HOST:PORT of a manager/, `join --token ${TOKEN} 10.0.0.1:x`],
    [1, /"tsswarm join" requires at least 1 argument/, `join --token ${TOKEN}`],
    [125, /"--label" flag: a label needs a name/, `join --label =x --token ${TOKEN} h:1`],
    [1, /unknown role "boss": use worker or manager/, 'join-token boss'],
    [1, /"tsswarm swarm join-token" requires exactly 1 argument/, 'swarm join-token'],
    [1, /nothing to update: give at least one flag/, 'cluster update'],
    [125, /"--autolock" flag: must be true or false/, 'cluster update --autolock=perhaps'],
    [125, /"--dead-manager-after" flag: must not be negative/, 'cluster update --dead-manager-after -1m'],
    [125, /"--accept-expired" flag: missing unit/, 'swarm update --accept-expired 5'],
    [1, /--ca-cert requires --rotate/, 'ca --ca-cert ca.pem'],
    [1, /--detach requires --rotate/, 'ca -d'],
    [1, /--ca-key requires --ca-cert/, 'ca --rotate --ca-key other.pem'],
    [1, /ca-cert: ENOENT/, 'ca --rotate --ca-cert none'],
    [1, /ca-cert: root certificate: there is no certificate in PEM/, 'ca --rotate --ca-cert text'],
    [1, /ca-cert, ca-key: root key: it does not belong/, 'ca --rotate --ca-cert ca.pem --ca-key other.pem'],
    [125, /"--role" flag: must be "worker" or "manager"/, 'node update --role boss b'],
    [125, /"--advertise-addr" flag: must be HOST:PORT/, 'node update --advertise-addr a:b:c b'],
    [1, /"tsswarm node promote" requires at least 1 argument/, 'node promote'],
    [1, /"tsswarm node rm" requires at least 1 argument/, 'node rm -f'],
    [1, /HOST:PORT: "a:b" must be HOST:PORT of a manager/, 'doctor a:b'],
    [1, /"tsswarm unlock" accepts no arguments/, 'unlock key'],
  ];

  for (let start = 0; start < cases.length; start += 4)
    await Promise.all(
      cases.slice(start, start + 4).map(async ([code, message, command]) => {
        const result = await cli.run(command.split(' '), { workdir: cli.directory });
        assert.match(result.stderr, message, command);
        assert.equal(result.code, code, command);
        assert.equal(result.stdout, '', command);
        assert.ok(!result.stderr.includes('secret'), `${command} shows its token`);
      }),
    );

  assert.deepEqual(cli.asked, []);
});

test('completion offers roles and names of nodes', async () => {
  await using cli = await CliNode.start({ control: { listNodes: () => ({ nodes: [aNode('alpha')] }) } });

  const roles = await cli.run(['__complete', 'join-token', 'w']);
  const nodes = await cli.run(['__complete', 'node', 'promote', 'al']);
  const states = await cli.run(['__complete', 'join', '--availability', '']);

  assert.equal(roles.stdout, 'worker\n:4\n');
  assert.equal(nodes.stdout, 'alpha\n:4\n');
  assert.equal(states.stdout, 'active\npause\ndrain\n:4\n');
});
