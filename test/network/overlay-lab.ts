// Machines made of network namespaces, on one Ethernet whose bridge has a namespace of its own, each with a process that
// has an overlay open, and containers with programs. The machine that runs the test is not touched.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createNamespace, isPinnedNamespace, removeNamespace } from '../../agent/linux/namespace.ts';
import type {
  NetworkInventory,
  OverlayEndpoint,
  OverlayNetwork,
  OverlayState,
} from '../../agent/network/overlay/overlay.ts';
import { ENDING, UNANSWERED } from '../../agent/network/overlay/overlay-rulesets.ts';
import { eventually } from '../support/eventually.ts';
import { CallableProgram, Program, run } from './lab.ts';

/**
 * A flow of one socket goes to another backend. What is sent before it is forgotten goes where nobody is: the kernel's whole
 * table is looked through for it.
 */
export async function flowMoves(
  peer: CallableProgram,
  target: { readonly host: string; readonly port?: number },
  check: (answer: string) => void,
): Promise<void> {
  await eventually(async () => {
    check(await peer.call('askAgain', target));
    return true;
  });
}

/** Ends the flows to these containers on all machines, as when their tasks stop together. */
export async function endFlows(
  lab: OverlayLab,
  networkId: string,
  backends: readonly Container[],
): Promise<void> {
  const addresses = backends.map(({ address }) => address);
  await Promise.all(lab.hosts.map(({ overlay }) => overlay.call('endFlows', [networkId, addresses])));
}

/** The answer to a question that `server` holds back until its flow is marked as one that ends. */
export async function askWhileEnding(
  lab: OverlayLab,
  networkId: string,
  server: Container,
  peer: CallableProgram,
  target: { readonly host: string; readonly port?: number },
): Promise<string> {
  await server.peer.call('hold');
  const held = server.peer.call('untilHeld');
  const answer = peer.call<string>('askAgain', target);
  await held;
  const ended = endFlows(lab, networkId, [server]);
  const isMarked = (host: OverlayHost): boolean =>
    host.inNetwork(networkId, 'cat /proc/net/nf_conntrack').includes(`mark=${UNANSWERED | ENDING}`);
  try {
    await eventually(() => lab.hosts.some(isMarked));
  } finally {
    await server.peer.call('release');
  }
  await ended;
  return await answer;
}

/** On the wire, reached by the hosts and not by containers' addresses. */
export const WIRE_ADDRESS = '192.0.2.254';
export const WIRE_IPV6_ADDRESS = '2001:db8::254';
/** Of a machine beyond a router of the wire. */
export const FAR_CLIENT_ADDRESS = '203.0.113.9';
const FAR_ROUTER_ADDRESS = '203.0.113.1';

const skip = process.getuid?.() === 0 ? false : 'needs root to make network namespaces';

/** A test that makes network namespaces. */
export function check(name: string, run: () => Promise<void>): void {
  test(name, { skip }, run);
}

/** Machines for the tests of a file. */
export function withLab(hosts: number, prepare: (lab: OverlayLab) => Promise<void>): void {
  let lab: OverlayLab | undefined;
  before(async () => {
    if (skip) return;
    lab = new OverlayLab(hosts);
    await lab.ready();
    await prepare(lab);
  });
  after(async () => {
    await lab?.[Symbol.asyncDispose]();
  });
}

export const net: OverlayNetwork = {
  id: 'net1',
  vni: 0x100001,
  subnets: [{ subnet: '10.0.1.0/24', gateway: '10.0.1.1' }],
  isInternal: false,
};

export const closed: OverlayNetwork = {
  ...net,
  id: 'closed',
  vni: 0x100002,
  subnets: [{ subnet: '10.0.2.0/24', gateway: '10.0.2.1' }],
  isInternal: true,
};

export const ingress: OverlayNetwork = {
  ...net,
  id: 'ingress',
  vni: 0x100000,
  subnets: [{ subnet: '10.0.0.0/24', gateway: '10.0.0.1' }],
  isIngress: true,
};

/** With IPv6 as well. */
export const dual: OverlayNetwork = {
  ...net,
  id: 'dual',
  vni: 0x100003,
  subnets: [
    { subnet: '10.0.3.0/24', gateway: '10.0.3.1' },
    { subnet: 'fd00:3::/64', gateway: 'fd00:3::1' },
  ],
};

export class OverlayHost {
  readonly path: string;
  readonly runDir: string;
  readonly address: string;
  overlay: CallableProgram;
  readonly #lab: OverlayLab;

  constructor(lab: OverlayLab, folder: string, number: number) {
    this.#lab = lab;
    this.address = `192.0.2.${number}`;
    this.path = join(folder, `host${number}`);
    this.runDir = join(folder, `run${number}`);
    mkdirSync(this.runDir);
    createNamespace(this.path, () => undefined);
    lab.wire(`ip link add port${number} mtu 1500 type veth peer name eth0`);
    lab.wire('ip link set eth0 netns', this.path);
    lab.wire(`ip link set port${number} master wire up`);
    for (const command of [
      'ip link set lo up',
      'ip link set eth0 up',
      `ip address add ${this.address}/24 dev eth0`,
      'sysctl -qw net.ipv4.ip_forward=0',
    ]) {
      this.run(command);
    }
    this.overlay = new CallableProgram(this.#program());
  }

  /** Output of a command in the host's namespace; words are separated by blanks. */
  run(...command: readonly string[]): string {
    return run(this.path, command);
  }

  /** Output of a command in a network's namespace. */
  inNetwork(networkId: string, ...command: readonly string[]): string {
    return run(this.pinOf(networkId), command);
  }

  pinOf(networkId: string): string {
    return join(this.runDir, 'overlay', networkId);
  }

  async ready(): Promise<void> {
    const first = await this.overlay.program.line();
    if (first !== 'ready') throw new Error(`overlay process: ${first}`);
  }

  async restart(): Promise<void> {
    await this.overlay.program.kill();
    this.overlay = new CallableProgram(this.#program());
    await this.ready();
  }

  /** Gives the host the IPv6 address 2001:db8::N. */
  addIpv6(): string {
    const address = `2001:db8::${this.address.split('.')[3]}`;
    this.run(`ip address add ${address}/64 dev eth0 nodad`);
    return address;
  }

  endpoint(networkId: string, address: string, changes: Partial<OverlayEndpoint> = {}): OverlayEndpoint {
    const id = changes.id ?? `c-${address}`;
    const namespacePath = join(this.runDir, 'containers', id);
    return { id, networkId, address, namespacePath, isDefaultRoute: true, ...changes };
  }

  ensure(network: OverlayNetwork): Promise<void> {
    return this.overlay.call('ensure', network);
  }

  apply(networkId: string, state: Partial<OverlayState>): Promise<void> {
    return this.overlay.call('apply', [networkId, { remotes: [], services: [], names: [], ...state }]);
  }

  list(): Promise<NetworkInventory[]> {
    return this.overlay.call('list');
  }

  /** What an overlay leaves on a host when it is not taken down. */
  traces(): { links: string; tables: string; pins: string[]; files: string[]; forwarding: string } {
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const files = readdirSync(this.runDir, { recursive: true, encoding: 'utf8' });
    return {
      links: this.run('ip -o link').replace(/NO-CARRIER,|LOWER_UP|state \S+|qlen \d+/g, ''),
      tables: this.run('nft list ruleset'),
      pins: mounts.filter((line) => line.includes(this.runDir)),
      files: files.filter((name) => name.includes('/') || name.includes('-')),
      forwarding: this.run('sysctl -n net.ipv4.ip_forward'),
    };
  }

  #program(): Program {
    return this.#lab.program(this.path, 'overlay-process.ts', [
      this.runDir,
      'lab',
      this.address,
      WIRE_ADDRESS,
    ]);
  }
}

/** A container with its program. */
export class Container {
  readonly host: OverlayHost;
  readonly endpoint: OverlayEndpoint;
  readonly peer: CallableProgram;

  constructor(host: OverlayHost, endpoint: OverlayEndpoint, peer: CallableProgram) {
    this.host = host;
    this.endpoint = endpoint;
    this.peer = peer;
  }

  get address(): string {
    return this.endpoint.address;
  }

  get ipv6Address(): string {
    return this.endpoint.ipv6Address ?? '';
  }

  /** "SERVER CLIENT" as the server sees it, or why there is no answer. */
  ask(protocol: 'tcp' | 'udp', host: string, port?: number): Promise<string> {
    return this.peer.call('ask', { protocol, host, port });
  }

  resolve(name: string, type = 'A'): Promise<unknown> {
    return this.peer.call('resolve', { name, type });
  }

  run(...command: readonly string[]): string {
    return run(this.endpoint.namespacePath, command);
  }

  /** The program ends first, as a container's does. */
  async leave(): Promise<void> {
    await this.peer.program.kill();
    await this.host.overlay.call('detach', this.endpoint);
  }
}

export class OverlayLab implements AsyncDisposable {
  readonly hosts: OverlayHost[];
  readonly wirePath: string;
  readonly #folder = mkdtempSync(join(tmpdir(), 'tsswarm-overlay-'));
  readonly #programs: Program[] = [];

  constructor(hosts: number) {
    this.wirePath = join(this.#folder, 'wire');
    createNamespace(this.wirePath, () => undefined);
    this.wire('ip link set lo up');
    this.wire('ip link add wire type bridge');
    this.wire(`ip address add ${WIRE_ADDRESS}/24 dev wire`);
    this.wire(`ip address add ${WIRE_IPV6_ADDRESS}/64 dev wire nodad`);
    this.wire('ip link set wire up');
    this.hosts = Array.from({ length: hosts }, (_, index) => new OverlayHost(this, this.#folder, index + 1));
  }

  async ready(): Promise<void> {
    for (const host of this.hosts) await host.ready();
  }

  wire(...command: readonly string[]): string {
    return run(this.wirePath, command);
  }

  program(namespacePath: string, script: string, args: readonly string[]): Program {
    const program = new Program(namespacePath, script, args);
    this.#programs.push(program);
    return program;
  }

  /** A callable program on a machine beyond a router. */
  farClient(): Promise<CallableProgram> {
    return this.peer(this.addFar());
  }

  /** A machine beyond a router, with 203.0.113.9. */
  addFar(): string {
    const path = join(this.#folder, 'far');
    createNamespace(path, () => undefined);
    this.wire('ip link add far type veth peer name eth0');
    this.wire('ip link set eth0 netns', path);
    this.wire(`ip address add ${FAR_ROUTER_ADDRESS}/24 dev far`);
    this.wire('ip link set far up');
    this.wire('sysctl -qw net.ipv4.ip_forward=1');
    run(path, [`ip address add ${FAR_CLIENT_ADDRESS}/24 dev eth0`]);
    run(path, ['ip link set eth0 up']);
    run(path, [`ip route add default via ${FAR_ROUTER_ADDRESS}`]);
    for (const host of this.hosts) host.run(`ip route add default via ${WIRE_ADDRESS}`);
    return path;
  }

  /** A callable program anywhere, that says it is `address`. */
  async peer(namespacePath: string, address = '', ipv6Address = ''): Promise<CallableProgram> {
    const program = this.program(namespacePath, 'overlay-peer.ts', [address, ipv6Address]);
    const first = await program.line();
    if (first !== 'ready') throw new Error(`overlay-peer.ts: ${first}`);
    return new CallableProgram(program);
  }

  /** A process with the node-local network of a machine open. */
  async localNetwork(host: OverlayHost): Promise<CallableProgram> {
    const stateDir = join(host.runDir, 'local-state');
    mkdirSync(stateDir, { recursive: true });
    const args = [join(host.runDir, 'local'), stateDir, 'locallab'];
    const program = this.program(host.path, 'network-process.ts', args);
    const first = await program.line();
    if (first !== 'ready') throw new Error(`network-process.ts: ${first}`);
    return new CallableProgram(program);
  }

  async container(
    host: OverlayHost,
    networkId: string,
    address: string,
    changes: Partial<OverlayEndpoint> = {},
  ): Promise<Container> {
    const endpoint = host.endpoint(networkId, address, changes);
    await host.overlay.call('attach', endpoint);
    return new Container(
      host,
      endpoint,
      await this.peer(endpoint.namespacePath, address, endpoint.ipv6Address),
    );
  }

  /** Each host is told of the containers on the others. */
  async connect(
    networkId: string,
    containers: readonly Container[],
    state: Partial<OverlayState> = {},
  ): Promise<void> {
    for (const host of this.hosts) {
      const remotes = containers
        .filter((container) => container.host !== host)
        .flatMap(({ endpoint: { address, ipv6Address }, host: { address: nodeAddress } }) => [
          { address, nodeAddress },
          ...(ipv6Address === undefined ? [] : [{ address: ipv6Address, nodeAddress }]),
        ]);
      await host.apply(networkId, { remotes, ...state });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) await program.kill();
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
      const path = line.split(' ')[4] ?? '';
      if (path.startsWith(this.#folder) && isPinnedNamespace(path)) removeNamespace(path);
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
