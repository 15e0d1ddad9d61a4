// Answers what a manager asks about this node's networks: whether the kernel has what it should have, and how far traffic
// from a task to a service comes. Every step is tried for real.

import { messageOf } from '../../core/errors.ts';
import type {
  NetworkAnswer,
  NetworkEndpoint,
  NetworkFinding,
  NetworkQuestion,
  PathQuestion,
} from '../../proto/generated/dispatcher.ts';
import type { NetworkBook } from './network-book.ts';
import type { Drift, Overlay } from './overlay/overlay.ts';
import { connectWithin, pingWithin, resolveWithin } from './probes.ts';

export interface ExamineOptions {
  readonly book: NetworkBook;
  readonly overlay: (isEncrypted: boolean) => Promise<Overlay>;
  /** Resolves when the network is in the kernel; rejects with what stands in the way. */
  readonly ready: (networkId: string) => Promise<void>;
  /** Of a task of this node. */
  readonly namespaceOf: (taskId: string) => string;
  readonly onRepair: (drift: readonly Drift[]) => void;
}

type Draft = Partial<NetworkFinding> & Pick<NetworkFinding, 'subject' | 'text'>;

export async function examineNetworks(
  options: ExamineOptions,
  question: NetworkQuestion,
): Promise<NetworkAnswer> {
  const { id, path, repair } = question;
  const drafts = path === undefined ? await auditAll(options, repair) : await followPath(options, path);
  const findings = drafts.map((draft) => ({ ok: true, remedy: '', taskId: '', ...draft }));
  return { id, findings };
}

async function auditAll(options: ExamineOptions, repair: boolean): Promise<Draft[]> {
  const findings: Draft[] = [];
  for (const networkId of options.book.ids) {
    const { name, encrypted } = options.book.get(networkId)?.spec ?? { name: networkId, encrypted: false };
    if (options.book.overlayNetwork(networkId) === undefined) continue;
    try {
      await options.ready(networkId);
      const overlay = await options.overlay(encrypted);
      const drift = repair ? await overlay.repair(networkId) : await overlay.audit(networkId);
      if (repair && drift.length > 0) options.onRepair(drift);
      findings.push(...describeDrift(name, drift, repair));
    } catch (error) {
      findings.push({ ok: false, subject: `network ${name}`, text: messageOf(error) });
    }
  }
  return findings;
}

function describeDrift(network: string, drift: readonly Drift[], isRepaired: boolean): Draft[] {
  const subject = `network ${network}`;
  if (drift.length === 0) return [{ subject, text: 'the kernel has what it should have' }];
  return drift.map(({ what, name, problem }) => ({
    ok: isRepaired,
    subject,
    text: `${what} ${name}: ${problem}${isRepaired ? ', mended' : ''}`,
    remedy: isRepaired
      ? ''
      : 'it is mended by itself within half a minute, or at once: tsswarm net audit --repair',
  }));
}

/** DNS → virtual address → each task behind it. */
async function followPath(options: ExamineOptions, path: PathQuestion): Promise<Draft[]> {
  const { book } = options;
  const { taskId, networkId, serviceId } = path;
  const network = book.get(networkId);
  if (network === undefined)
    return [
      {
        ok: false,
        subject: 'network',
        text: 'this node was not told of the network',
        remedy: 'tsswarm node ls',
      },
    ];
  try {
    await options.ready(networkId);
  } catch (error) {
    return [{ ok: false, subject: 'network', text: messageOf(error) }];
  }
  const drift = await (await options.overlay(network.spec.encrypted)).audit(networkId);
  const kernel = describeDrift(network.spec.name, drift, false);
  const { service, endpoints } = book.serviceIn(networkId, serviceId);
  if (service === undefined)
    return [
      ...kernel,
      { ok: false, subject: 'dns', text: 'this node was not told of the service in this network' },
    ];
  const namespacePath = options.namespaceOf(taskId);
  const backends = endpoints.filter(({ serving }) => serving);
  const expected = service.virtualAddresses.length > 0 ? service.virtualAddresses : backends.flatMap(ipv4Of);
  return [
    ...kernel,
    await findName(namespacePath, service.name, expected.filter(isIpv4)),
    describeBackends(service.virtualAddresses, backends, endpoints),
    ...(await Promise.all(backends.map((backend) => reach(namespacePath, backend, path.port)))),
  ];
}

async function findName(namespacePath: string, name: string, expected: readonly string[]): Promise<Draft> {
  const found = await resolveWithin(namespacePath, name);
  const subject = 'dns';
  if (found === undefined)
    return {
      ok: false,
      subject,
      text: `nobody answers for ${name}`,
      remedy: 'is tsswarmd of this node running well? See its log.',
    };
  const isRight = found.length > 0 && found.every((address) => expected.includes(address));
  const answer = found.length === 0 ? 'no address' : found.join(', ');
  if (isRight) return { subject, text: `${name} is ${answer}` };
  return {
    ok: false,
    subject,
    text: `${name} is ${answer}, it should be ${expected.join(', ') || 'the addresses of its tasks, of which none runs'}`,
  };
}

function describeBackends(
  virtualAddresses: readonly string[],
  backends: readonly NetworkEndpoint[],
  endpoints: readonly NetworkEndpoint[],
): Draft {
  const subject = virtualAddresses.length > 0 ? 'vip' : 'dnsrr';
  const rest = endpoints.length - backends.length;
  const text = `${backends.length} tasks take connections${rest > 0 ? `, ${rest} do not (starting or stopping)` : ''}`;
  if (backends.length > 0) return { subject, text };
  return { ok: false, subject, text, remedy: 'tsswarm why SERVICE says why none runs' };
}

async function reach(namespacePath: string, backend: NetworkEndpoint, port: number): Promise<Draft> {
  const [address = ''] = ipv4Of(backend);
  const about = { subject: 'task', taskId: backend.taskId };
  const echoMs = await pingWithin(namespacePath, address);
  const echo = echoMs === undefined ? 'no echo' : `echo ${echoMs.toFixed(1)} ms`;
  if (port === 0) {
    if (echoMs !== undefined) return { ...about, text: `${address}: ${echo}` };
    return {
      ...about,
      ok: false,
      text: `${address}: no echo`,
      remedy: 'the path between the nodes, or a policy of the network, stops it',
    };
  }
  const connection = await connectWithin(namespacePath, address, port);
  if ('tookMs' in connection)
    return {
      ...about,
      text: `${address}: ${echo}, TCP port ${port} open after ${connection.tookMs.toFixed(1)} ms`,
    };
  const remedy =
    echoMs === undefined
      ? 'the path between the nodes, or a policy of the network, stops it'
      : `is its program listening on 0.0.0.0:${port}?`;
  return { ...about, ok: false, text: `${address}: ${echo}, TCP port ${port}: ${connection.error}`, remedy };
}

function ipv4Of({ addresses }: NetworkEndpoint): string[] {
  return addresses.filter(isIpv4);
}

function isIpv4(address: string): boolean {
  return !address.includes(':');
}
