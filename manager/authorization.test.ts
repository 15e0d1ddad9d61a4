// Who may call what: every RPC of the port for nodes, with every kind of identity, over real connections.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hasCode, toSwarmError } from '../core/errors.ts';
import { emptyNodeDescription } from '../core/generated/objects.ts';
import { newJoinSecret } from '../core/join-token.ts';
import { systemClock } from '../node/system-clock.ts';
import { ControlService } from '../proto/generated/control.ts';
import { DispatcherService } from '../proto/generated/dispatcher.ts';
import {
  emptyIssueCertificateRequest,
  MembershipService,
  NodeCaService,
} from '../proto/generated/membership.ts';
import { PeerService } from '../proto/generated/raft.ts';
import { TrunkService } from '../proto/generated/trunk.ts';
import { decode, type Service } from '../proto/wire.ts';
import { type Client, createClient, openChannel, openTlsChannel } from '../rpc/client.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { anonymousCredentials, clientCredentials, type TlsIdentity } from '../rpc/tls.ts';
import { eventually } from '../test/support/eventually.ts';
import { freePort } from '../test/support/real-registry.ts';
import type { Root } from './ca/certificate-tool.ts';
import { x509Tool } from './ca/x509.ts';
import { IdentityHolder } from './identity-holder.ts';
import { runManager } from './manager.ts';

setLogLevel('silent');

const CLUSTER = 'cluster';
const HOUR_MS = 3_600_000;
const KINDS = ['none', 'expired', 'foreign', 'worker', 'demoted', 'removed', 'manager'] as const;
type Kind = (typeof KINDS)[number];

/** Who gets past the door, beside a manager. What stands behind it may still say no. */
const NODES: readonly Kind[] = ['worker', 'demoted', 'manager'];
const ADMITTED: readonly (readonly [string, Service, readonly Kind[]])[] = [
  ['Control', ControlService, ['manager']],
  ['Dispatcher', DispatcherService, NODES],
  ['Membership.LeaveCluster', { leaveCluster: MembershipService.leaveCluster }, NODES],
  ['Membership.JoinManagers', { joinManagers: MembershipService.joinManagers }, ['manager']],
  ['Peer', PeerService, ['manager']],
  ['Trunk', TrunkService, ['manager']],
  ['NodeCa.GetRoots', { getRoots: NodeCaService.getRoots }, ['none', 'expired', 'foreign', ...NODES]],
  // Without a token only a member gets a certificate.
  ['NodeCa.IssueCertificate', { issueCertificate: NodeCaService.issueCertificate }, NODES],
];

describe('on the port for nodes', () => {
  const stop = new AbortController();
  const identities = new Map<Kind, TlsIdentity | undefined>([['none', undefined]]);
  let directory: string;
  let address: string;
  let manager: Promise<void>;
  let root: Root;
  const nodeIds = new Map<Kind, string>();

  const issue = async (
    subject: { nodeId: string; role: 'worker' | 'manager' },
    of = root,
    lifeMs = HOUR_MS,
  ) => {
    const { keyPem, requestPem } = await x509Tool.createKeyAndRequest();
    const certificate = await x509Tool.issue({
      requestPem,
      root: of,
      subject: { ...subject, clusterId: CLUSTER },
      // Long enough ago for a short life to be over.
      nowMs: Date.now() - (lifeMs < HOUR_MS ? HOUR_MS : 0),
      lifeMs,
    });
    return { certificate, key: keyPem, roots: root.certificatePem };
  };

  const call = async <S extends Service, T>(
    service: S,
    identity: TlsIdentity | undefined,
    use: (client: Client<S>) => Promise<T>,
  ): Promise<T> => {
    const credentials =
      identity === undefined
        ? anonymousCredentials(root.certificatePem)
        : clientCredentials(identity, { clusterId: CLUSTER });
    const channel = openTlsChannel(address, credentials);
    try {
      return await use(createClient(service, channel));
    } finally {
      channel.close();
    }
  };

  /** A node that joined with a token. */
  const join = async (role: 'worker' | 'manager') => {
    const channel = openChannel(`unix://${path.join(directory, 'control.sock')}`);
    const tokens = await createClient(ControlService, channel).getJoinTokens({});
    channel.close();
    const { keyPem, requestPem } = await x509Tool.createKeyAndRequest();
    const { nodeId, certificate, roots } = await call(NodeCaService, undefined, (client) =>
      client.issueCertificate({ ...emptyIssueCertificateRequest, request: requestPem, token: tokens[role] }),
    );
    return { nodeId, identity: { certificate, key: keyPem, roots } };
  };

  before(async () => {
    directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-authorization-'));
    address = `127.0.0.1:${await freePort()}`;
    const identity = new IdentityHolder();
    manager = runManager(
      {
        stateDirectory: path.join(directory, 'state'),
        controlSocket: path.join(directory, 'control.sock'),
        managerSocket: path.join(directory, 'manager.sock'),
        nodeId: 'founder',
        clusterId: CLUSTER,
        advertiseAddress: address,
        listenAddress: address,
        founding: { spec: {}, network: {}, availability: 'active', dataPathAddress: '' },
        managers: [],
        unlockKeys: [],
        clock: systemClock,
        random: Math.random,
        tool: {
          ...x509Tool,
          createRoot: async (options) => {
            const made = await x509Tool.createRoot(options);
            // The table also calls what rotates the root.
            root ??= made;
            return made;
          },
        },
        identity,
      },
      stop.signal,
    );
    manager.catch(() => {});
    const own = openChannel(`unix://${path.join(directory, 'manager.sock')}`);
    const { keyPem, requestPem } = await x509Tool.createKeyAndRequest();
    const { certificate, roots } = await eventually(() =>
      createClient(NodeCaService, own).issueCertificate({
        ...emptyIssueCertificateRequest,
        request: requestPem,
      }),
    );
    own.close();
    const founder = { certificate, key: keyPem, roots };
    identity.set(founder);
    await eventually(() => call(NodeCaService, undefined, (client) => client.getRoots({})));

    identities.set('manager', founder);
    nodeIds.set('manager', 'founder');
    for (const kind of ['worker', 'demoted', 'removed', 'expired'] as const) {
      const { nodeId, identity } = await join(kind === 'removed' ? 'manager' : 'worker');
      nodeIds.set(kind, nodeId);
      identities.set(kind, identity);
    }
    const idOf = (kind: Kind) => nodeIds.get(kind) ?? '';
    // A manager's certificate, of a node that is a worker by now.
    identities.set('demoted', await issue({ nodeId: idOf('demoted'), role: 'manager' }));
    identities.set('expired', await issue({ nodeId: idOf('expired'), role: 'manager' }, root, 60_000));
    const foreignRoot = await x509Tool.createRoot({ clusterId: CLUSTER, nowMs: Date.now() });
    identities.set('foreign', await issue({ nodeId: 'founder', role: 'manager' }, foreignRoot));
    await call(ControlService, founder, async (client) => {
      const { nodes } = await client.listNodes({});
      const node = nodes.find(({ id }) => id === idOf('removed'));
      assert.ok(node);
      await client.updateNode({
        nodeId: node.id,
        version: node.meta.version,
        spec: { ...node.spec, desiredRole: 'worker' },
        address: '',
      });
      await eventually(async () => {
        await client.removeNode({ node: node.id, force: true });
        return true;
      });
    });
  });
  after(async () => {
    stop.abort();
    await manager;
    await rm(directory, { recursive: true });
  });

  for (const [title, service, admitted] of ADMITTED)
    for (const kind of KINDS)
      test(`${title} ${admitted.includes(kind) ? 'lets in' : 'refuses'} a caller with ${kind === 'none' ? 'no certificate' : `the certificate of: ${kind}`}`, async () => {
        for (const [name, method] of Object.entries(service)) {
          // Empty but for what is asked who it is.
          const request = decode(method.request, Buffer.alloc(0));
          const member = { id: 0, nodeId: nodeIds.get(kind) ?? '', address };
          const outcome = await call({ [name]: method }, identities.get(kind), (client) =>
            answerOf(client, name, method, 'member' in request ? { member } : request),
          );
          const isRefused = outcome === 'permission-denied';
          assert.equal(isRefused, !admitted.includes(kind), `${name}: ${outcome}`);
        }
      });

  test('a worker may register only as itself', async () => {
    const asOther = await call(DispatcherService, identities.get('worker'), async (client) => {
      const session = client.session();
      await session.send({
        register: { nodeId: 'founder', description: emptyNodeDescription, address: '' },
      });
      return firstOf(session).catch((error) => toSwarmError(error));
    });
    assert.ok(hasCode(asOther, 'permission-denied'), String(asOther));
  });

  test('a node gets a certificate for itself only, and for the role that the cluster has it for', async () => {
    const { requestPem } = await x509Tool.createKeyAndRequest({ nodeId: 'founder' });
    const { nodeId, certificate } = await call(NodeCaService, identities.get('demoted'), (client) =>
      client.issueCertificate({ ...emptyIssueCertificateRequest, request: requestPem }),
    );
    assert.equal(nodeId, nodeIds.get('demoted'));
    assert.match(certificate, /CERTIFICATE/);
  });

  test('only a manager is believed for whom it asks', async () => {
    const metadata = { 'tsswarm-caller-role': 'manager', 'tsswarm-caller-node': 'founder' };
    const asWorker = await call(ControlService, identities.get('worker'), (client) =>
      client.listNodes({}, { metadata }).catch((error) => toSwarmError(error)),
    );
    // A manager that was demoted meanwhile does the same: whoever asked it has to ask another one.
    assert.ok(hasCode(asWorker, 'unavailable'));
    const forWorker = {
      ...metadata,
      'tsswarm-caller-role': 'worker',
      'tsswarm-caller-node': nodeIds.get('worker') ?? '',
    };
    const asManager = await call(ControlService, identities.get('manager'), (client) =>
      client.listNodes({}, { metadata: forWorker }).catch((error) => toSwarmError(error)),
    );
    assert.ok(hasCode(asManager, 'permission-denied'), 'who asks for a worker gets what a worker gets');
  });

  test('a wrong token, one of another cluster and one that was rotated are refused', async () => {
    const { requestPem } = await x509Tool.createKeyAndRequest();
    const ask = (token: string) =>
      call(NodeCaService, undefined, (client) =>
        client.issueCertificate({ ...emptyIssueCertificateRequest, request: requestPem, token }).then(
          () => 'issued',
          (error) => toSwarmError(error).code,
        ),
      );
    const tokens = await call(ControlService, identities.get('manager'), (client) =>
      client.getJoinTokens({}),
    );
    const [prefix, version, digest, secret] = tokens.worker.split('-');
    const other = newJoinSecret(randomBytes);
    assert.equal(await ask(`${prefix}-${version}-${digest}-${other}`), 'permission-denied');
    assert.equal(await ask(`${prefix}-${version}-${'0'.repeat(50)}-${secret}`), 'permission-denied');
    await call(ControlService, identities.get('manager'), (client) =>
      client.updateCluster({
        version: 0,
        rotateWorkerToken: true,
        rotateManagerToken: false,
        rotateUnlockKey: false,
      }),
    );
    assert.equal(await ask(tokens.worker), 'permission-denied');
    assert.equal(await ask(tokens.manager), 'issued', 'the other token stays');
  });

  test('an expired certificate is renewed only while an operator allows it', async () => {
    const { requestPem } = await x509Tool.createKeyAndRequest();
    const renew = (identity: TlsIdentity | undefined) =>
      call(NodeCaService, identity, (client) =>
        client.issueCertificate({ ...emptyIssueCertificateRequest, request: requestPem }).then(
          ({ nodeId }) => nodeId,
          (error) => toSwarmError(error).code,
        ),
      );
    const allow = (untilMs: number) =>
      call(ControlService, identities.get('manager'), async (client) => {
        const { cluster } = await client.getCluster({});
        await client.updateCluster({
          version: cluster.meta.version,
          spec: { ...cluster.spec, acceptExpiredUntilMs: untilMs },
          rotateManagerToken: false,
          rotateWorkerToken: false,
          rotateUnlockKey: false,
        });
      });
    const foreignRoot = await x509Tool.createRoot({ clusterId: CLUSTER, nowMs: Date.now() });
    const forged = await issue({ nodeId: 'founder', role: 'manager' }, foreignRoot, 60_000);
    // Of a root that was on its way in when another rotation began: only the old root still vouches for it.
    const givenUpRoot = await x509Tool.createRoot({ clusterId: CLUSTER, nowMs: Date.now() - HOUR_MS });
    const crossed = { newRootPem: givenUpRoot.certificatePem, oldRoot: root, nowMs: Date.now() };
    const leaf = await issue({ nodeId: nodeIds.get('expired') ?? '', role: 'worker' }, givenUpRoot, 60_000);
    const givenUp = { ...leaf, certificate: leaf.certificate + (await x509Tool.crossSign(crossed)) };

    assert.equal(await renew(identities.get('expired')), 'permission-denied');
    await allow(Date.now() + HOUR_MS);
    assert.equal(await renew(identities.get('expired')), nodeIds.get('expired'));
    assert.equal(await renew(givenUp), nodeIds.get('expired'), 'through what was shown with it');
    assert.equal(await renew(forged), 'permission-denied', 'of another authority, and expired');
    await allow(0);
    assert.equal(await renew(identities.get('expired')), 'permission-denied');
  });
});

/** The code of the error that a call gets, or "answered". */
async function answerOf(
  client: Record<string, unknown>,
  name: string,
  method: Service[string],
  request: unknown,
): Promise<string> {
  const invoke = client[name] as (...args: unknown[]) => unknown;
  const options = { timeoutMs: 5_000 };
  try {
    switch (method.shape) {
      case 'unary':
        await invoke(request, options);
        break;
      case 'server-stream':
        await firstOf(invoke(request, options) as AsyncIterable<unknown>);
        break;
      case 'client-stream': {
        const call = invoke(options) as { end(): void; response: Promise<unknown> };
        call.end();
        await call.response;
        break;
      }
      case 'bidi': {
        const call = invoke(options) as AsyncIterable<unknown> & { end(): void };
        call.end();
        await firstOf(call);
      }
    }
    return 'answered';
  } catch (error) {
    return toSwarmError(error).code;
  }
}

async function firstOf(messages: AsyncIterable<unknown>): Promise<unknown> {
  for await (const message of messages) return message;
  return undefined;
}
