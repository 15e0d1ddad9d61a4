// What the facts of a machine mean for a node of a cluster. Pure; host-probes.ts gets the facts. Every finding that is not
// good says how to mend it.

import { TIMING } from '../manager/raft-host/host-options.ts';
import type { Finding } from '../proto/generated/node.ts';

// Logs and the times of tasks, read side by side, are in the wrong order from here on.
const SKEW_WARNING_MS = 1_000;
// Certificates begin an hour before they are issued, so that much a new node may be behind before it refuses its own. But with the
// shortest life there is, an hour, a node renews at 48 minutes of its own clock at the latest: one that is 12 minutes behind
// is too late for its managers. The limit leaves two minutes to try again.
const SKEW_FATAL_MS = 10 * 60_000;

const ELECTION_MS = TIMING.tickMs * TIMING.electionTicks;
// A manager that waits for its disk answers nobody: a tenth of the election timeout is felt in every change.
const FLUSH_WARNING_MS = ELECTION_MS / 10;

const ETHERNET_MTU = 1_500;
// What VXLAN puts around a packet: outer IPv4, UDP, VXLAN and inner Ethernet headers.
const VXLAN_BYTES = 50;

const GIB = 2 ** 30;
const SPACE_WARNING_BYTES = 2 * GIB;
// Two segments of a manager's log.
const SPACE_FATAL_BYTES = 128 * 2 ** 20;
// Twice what daemon, manager and containerd take together when nothing runs.
const MEMORY_WARNING_BYTES = 2 ** 28;

const CGROUP_CONTROLLERS = ['cpu', 'memory', 'pids'];
// The oldest that the engine is tested with.
const CONTAINERD_OLDEST = { major: 1, minor: 6 };

/** What the node cannot do without, and what only overlay networks need. */
const FEATURES = {
  overlayfs: { severity: 'fatal', purpose: 'containers have no file system' },
  'network namespaces': { severity: 'fatal', purpose: 'containers have no network of their own' },
  veth: { severity: 'fatal', purpose: 'containers cannot be connected' },
  nftables: { severity: 'fatal', purpose: 'ports cannot be published and containers reach nothing outside' },
  bridge: { severity: 'warning', purpose: 'overlay networks will not work here' },
  vxlan: { severity: 'warning', purpose: 'overlay networks will not work here' },
} as const;

export type KernelFeature = keyof typeof FEATURES;

const good = (subject: string, text: string): Finding => ({ severity: 'good', subject, text, remedy: '' });

export interface ClockSample {
  readonly manager: string;
  /** Positive: this machine is ahead. */
  readonly skewMs: number;
  /** Of the question that told it: the answer may be half of this old, or not old at all. */
  readonly roundTripMs: number;
}

export function judgeClock({ manager, skewMs, roundTripMs }: ClockSample): Finding {
  const certainMs = Math.max(0, Math.abs(skewMs) - roundTripMs / 2);
  const severity = certainMs > SKEW_FATAL_MS ? 'fatal' : certainMs > SKEW_WARNING_MS ? 'warning' : 'good';
  if (severity === 'good')
    return good(
      'clock',
      `agrees with that of ${manager} within ${formatMs(Math.abs(skewMs) + roundTripMs / 2)}`,
    );
  const consequence =
    severity === 'fatal'
      ? 'certificates are not valid yet, or not any more'
      : 'logs and times of tasks will be out of order';
  return {
    severity,
    subject: 'clock',
    text: `${formatMs(certainMs)} ${skewMs > 0 ? 'ahead of' : 'behind'} that of ${manager}: ${consequence}`,
    remedy: 'Let NTP set the clocks of all nodes: systemd-timesyncd or chrony.',
  };
}

export interface ManagerContact {
  readonly address: string;
  /** Empty: it answers. */
  readonly problem: string;
}

/** One that answers is enough to take part. */
export function judgeManagers(contacts: readonly ManagerContact[]): Finding[] {
  const isAlone = contacts.every(({ problem }) => problem !== '');
  return contacts.map(({ address, problem }) =>
    problem === ''
      ? good('manager', `${address} answers`)
      : {
          severity: isAlone ? 'fatal' : 'warning',
          subject: 'manager',
          text: `${address} cannot be reached: ${problem}`,
          remedy:
            'See that tsswarmd runs there, that this is its advertised address, and that firewalls pass TCP to this port.',
        },
  );
}

export interface LinkFacts {
  readonly name: string;
  readonly mtu: number;
  /** A manager that is reached by it. */
  readonly towards: string;
}

export function judgeMtu({ name, mtu, towards }: LinkFacts): Finding {
  const text = `${name}, the way to ${towards}, takes packets of ${mtu} bytes: ${mtu - VXLAN_BYTES} inside overlay networks`;
  if (mtu >= ETHERNET_MTU) return good('mtu', text);
  return {
    severity: 'warning',
    subject: 'mtu',
    text,
    remedy: `Raise the MTU of ${name} to ${ETHERNET_MTU} where the network behind it carries that; nodes must agree on it.`,
  };
}

export interface CgroupFacts {
  /** 0: none is mounted. */
  readonly version: 0 | 1 | 2;
  readonly controllers: readonly string[];
}

export function judgeCgroup({ version, controllers }: CgroupFacts): Finding {
  if (version === 0)
    return {
      severity: 'fatal',
      subject: 'cgroup',
      text: 'no cgroup hierarchy is mounted: containers cannot be kept together',
      remedy: 'Mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup (systemd does that by itself).',
    };
  const missing = CGROUP_CONTROLLERS.filter((controller) => !controllers.includes(controller));
  if (missing.length === 0)
    return good('cgroup', `version ${version} with the controllers ${CGROUP_CONTROLLERS.join(', ')}`);
  return {
    severity: 'warning',
    subject: 'cgroup',
    text: `version ${version} without ${missing.join(', ')}: limits of these are not kept`,
    remedy: `Boot with ${missing.map((controller) => `cgroup_enable=${controller}`).join(' ')} on the kernel's command line.`,
  };
}

/** `problems`: what the kernel said when the feature was tried; empty: it works. */
export function judgeKernel(problems: Readonly<Record<KernelFeature, string>>): Finding[] {
  const features = Object.keys(FEATURES) as KernelFeature[];
  const working = features.filter((feature) => problems[feature] === '');
  const missing = features.filter((feature) => problems[feature] !== '');
  return [
    ...(working.length > 0 ? [good('kernel', `${working.join(', ')}: tried, work`)] : []),
    ...missing.map((feature) => ({
      severity: FEATURES[feature].severity,
      subject: 'kernel',
      text: `${feature}: ${problems[feature]}; ${FEATURES[feature].purpose}`,
      remedy: remedyOf(feature),
    })),
  ];
}

const MODULES: Readonly<Record<KernelFeature, string | undefined>> = {
  overlayfs: 'overlay',
  'network namespaces': undefined,
  veth: 'veth',
  nftables: 'nf_tables',
  bridge: 'bridge',
  vxlan: 'vxlan',
};

function remedyOf(feature: KernelFeature): string {
  const module = MODULES[feature];
  if (module === undefined) return "Use a kernel with CONFIG_NET_NS, such as a distribution's own.";
  const place =
    feature === 'overlayfs' ? ', and see that the data root lies on a file system such as ext4 or xfs' : '';
  return `Load the module (modprobe ${module}), or use a kernel that has it${place}.`;
}

export interface DataPortFacts {
  readonly port: number;
  /** Who has it: nobody, the kernel (a VXLAN device), a program, or it could not be tried. */
  readonly holder: 'nobody' | 'kernel' | 'program' | 'unknown';
  readonly problem: string;
}

export function judgeDataPort({ port, holder, problem }: DataPortFacts): Finding {
  const unproven = 'whether UDP passes between nodes only a peer can tell';
  if (holder === 'nobody') return good('overlay', `UDP port ${port} is free; ${unproven}`);
  if (holder === 'kernel')
    return good('overlay', `UDP port ${port} is held by a VXLAN device of the kernel; ${unproven}`);
  const text =
    holder === 'program'
      ? `UDP port ${port} is held by another program: overlay networks will not work here`
      : `UDP port ${port} cannot be tried: ${problem}`;
  return {
    severity: 'warning',
    subject: 'overlay',
    text,
    remedy: `Find out who has it (ss -ulpn 'sport = :${port}'), or begin the cluster with another --data-path-port.`,
  };
}

export interface FlushFacts {
  readonly directory: string;
  /** Why nothing can be written there; empty: it can. */
  readonly problem: string;
  readonly p99Ms: number;
  readonly samples: number;
  /** The log of a manager lies there. */
  readonly isLog: boolean;
}

export function judgeFlush({ directory, problem, p99Ms, samples, isLog }: FlushFacts): Finding {
  if (problem !== '')
    return {
      severity: 'fatal',
      subject: 'disk',
      text: `${directory} cannot be written: ${problem}`,
      remedy: 'Make room there, mount it for writing, or give another --data-root to tsswarmd.',
    };
  const text = `a write to ${directory} is safe on the disk after ${formatMs(p99Ms)} (p99 of ${samples})`;
  if (p99Ms <= FLUSH_WARNING_MS) return good('disk', text);
  const isFatal = p99Ms > ELECTION_MS && isLog;
  const compared =
    p99Ms > ELECTION_MS
      ? `a manager loses its leadership after ${formatMs(ELECTION_MS)} of silence`
      : 'every change waits for that on a manager';
  return {
    severity: isFatal ? 'fatal' : 'warning',
    subject: 'disk',
    text: `${text}; ${compared}`,
    remedy: isLog
      ? 'Put the data root on a faster disk, away from what keeps this one busy, or demote this node.'
      : 'Put the data root on a faster disk before this node becomes a manager.',
  };
}

export interface SpaceFacts {
  readonly directory: string;
  readonly freeBytes: number;
}

export function judgeSpace({ directory, freeBytes }: SpaceFacts): Finding {
  const text = `${formatGib(freeBytes)} free in ${directory}`;
  if (freeBytes >= SPACE_WARNING_BYTES) return good('disk', text);
  const isFatal = freeBytes < SPACE_FATAL_BYTES;
  return {
    severity: isFatal ? 'fatal' : 'warning',
    subject: 'disk',
    text: `${text}: ${isFatal ? 'there is no room for images, logs, or the log of a manager' : 'images and logs will fill it'}`,
    remedy: 'Make room (tsswarm image rm), or give --data-root to tsswarmd on a larger file system.',
  };
}

export interface MemoryFacts {
  readonly totalBytes: number;
  readonly availableBytes: number;
}

export function judgeMemory({ totalBytes, availableBytes }: MemoryFacts): Finding {
  const text = `${formatGib(availableBytes)} of ${formatGib(totalBytes)} available`;
  if (availableBytes >= MEMORY_WARNING_BYTES) return good('memory', text);
  return {
    severity: 'warning',
    subject: 'memory',
    text: `${text}: containers, or tsswarm itself, will be killed for want of it`,
    remedy: 'Stop what is not needed, add memory or swap, and give services --limit-memory.',
  };
}

export function judgeContainerd(version: string): Finding {
  const [, major, minor] = (/^v?(\d+)\.(\d+)/.exec(version) ?? []).map(Number);
  const oldest = `${CONTAINERD_OLDEST.major}.${CONTAINERD_OLDEST.minor}`;
  const isKnown = major !== undefined && minor !== undefined;
  const isOld =
    isKnown &&
    (major < CONTAINERD_OLDEST.major ||
      (major === CONTAINERD_OLDEST.major && minor < CONTAINERD_OLDEST.minor));
  if (isKnown && !isOld) return good('containerd', version);
  return {
    severity: 'warning',
    subject: 'containerd',
    text: isKnown ? `${version} is older than ${oldest}` : `"${version}" is a version nobody knows`,
    remedy: `Install containerd ${oldest} or newer, or name another one with --containerd to tsswarmd.`,
  };
}

export function judgeRuntime(runtime: string): Finding {
  const isSecond = !runtime.startsWith('crun');
  return good(
    'runtime',
    isSecond ? `${runtime} (crun is not there, fails its self-test, or is not wanted)` : runtime,
  );
}

/** What another firewall on this machine does to containers, in sentences. */
export function judgeFirewall(warnings: readonly string[]): Finding[] {
  return warnings.map((text) => ({
    severity: 'warning',
    subject: 'firewall',
    text,
    remedy: 'Add these rules to that chain, or let it accept what no rule is about.',
  }));
}

function formatMs(ms: number): string {
  if (ms < 10) return `${Number(ms.toFixed(1))} ms`;
  if (ms < 10_000) return `${Math.round(ms)} ms`;
  return ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`;
}

function formatGib(bytes: number): string {
  return bytes < GIB ? `${Math.round(bytes / 2 ** 20)} MiB` : `${Number((bytes / GIB).toFixed(1))} GiB`;
}
