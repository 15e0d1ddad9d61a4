// A machine made of network namespaces: `host`, where a local network runs, and `outside`, which knows the host's
// address and nothing of what is behind it. The machine that runs the test is not touched.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setImmediate } from 'node:timers/promises';
import { createNamespace, removeNamespace } from '../../agent/linux/namespace.ts';
import type { Endpoint, EndpointRequest } from '../../agent/network/network.ts';
import { type ErrorCode, SwarmError } from '../../core/errors.ts';

export const HOST_ADDRESS = '198.51.100.2';
const ROUTER_ADDRESS = '198.51.100.1';
/** Beyond the router: reached by the default route only. */
export const FAR_ADDRESS = '203.0.113.1';

/** Where `addIpv6` was called. */
export const HOST_IPV6_ADDRESS = '2001:db8::2';
export const OUTSIDE_IPV6_ADDRESS = '2001:db8::1';
/** Beyond the router. */
export const FAR_IPV6_ADDRESS = '2001:db8:1::1';

const REPLY_TIMEOUT_MS = 5000;
const CALL_TIMEOUT_MS = 30_000;

/** A program in a namespace, spoken to line by line. */
export class Program {
  readonly process: ChildProcess;
  readonly #lines: string[] = [];
  #wake: (() => void) | undefined;

  constructor(namespacePath: string, script: string, args: readonly string[]) {
    const path = join(import.meta.dirname, script);
    const command = [`--net=${namespacePath}`, process.execPath, path, ...args];
    this.process = spawn('nsenter', command, { stdio: ['pipe', 'pipe', 'inherit'] });
    const push = (line: string): void => {
      this.#lines.push(line);
      this.#wake?.();
    };
    createInterface(this.process.stdout!)
      .on('line', push)
      .on('close', () => push('closed'));
  }

  send(line: string): void {
    this.process.stdin!.write(`${line}\n`);
  }

  /** The next line; "silence" when none comes in time. */
  async line(timeoutMs = REPLY_TIMEOUT_MS): Promise<string> {
    if (this.#lines.length === 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const timer = setTimeout(resolve, timeoutMs);
      await promise;
      clearTimeout(timer);
    }
    return this.#lines.shift() ?? 'silence';
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.process.once('exit', () => resolve());
    this.process.kill('SIGKILL');
    await promise;
  }
}

/** A program that answers one line to each line: {method, argument} with {value} or {code, message}. */
export class CallableProgram {
  readonly program: Program;

  constructor(program: Program) {
    this.program = program;
  }

  async call<T>(method: string, argument?: unknown, timeoutMs = CALL_TIMEOUT_MS): Promise<T> {
    this.program.send(JSON.stringify({ method, argument }));
    const line = await this.program.line(timeoutMs);
    if (!line.startsWith('{')) throw new Error(`${method}: ${line}`);
    const reply = JSON.parse(line) as { value: T; code?: ErrorCode; message: string };
    if (reply.code !== undefined) throw new SwarmError(reply.code, reply.message);
    return reply.value;
  }
}

/** A process with the local network open. */
export class NetworkProcess extends CallableProgram {
  attach(request: EndpointRequest): Promise<Endpoint> {
    return this.call('attach', request);
  }
}

export class Lab implements AsyncDisposable {
  readonly hostPath: string;
  readonly outsidePath: string;
  readonly runDir: string;
  readonly stateDir: string;
  readonly #folder = mkdtempSync(join(tmpdir(), 'tsswarm-network-'));
  readonly #programs: Program[] = [];

  constructor() {
    this.hostPath = join(this.#folder, 'host');
    this.outsidePath = join(this.#folder, 'outside');
    this.runDir = join(this.#folder, 'run');
    this.stateDir = join(this.#folder, 'state');
    mkdirSync(this.stateDir);
    for (const path of [this.hostPath, this.outsidePath]) createNamespace(path, () => undefined);
    this.outside('ip link add wan type veth peer name eth0');
    this.outside('ip link set eth0 netns', this.hostPath);
    for (const command of [
      'ip link set lo up',
      'ip link set eth0 up',
      `ip address add ${HOST_ADDRESS}/24 dev eth0`,
      `ip route add default via ${ROUTER_ADDRESS}`,
      'sysctl -qw net.ipv4.ip_forward=0',
    ]) {
      this.host(command);
    }
    for (const command of [
      'ip link set lo up',
      'ip link set wan up',
      `ip address add ${ROUTER_ADDRESS}/24 dev wan`,
      `ip address add ${FAR_ADDRESS}/32 dev lo`,
    ]) {
      this.outside(command);
    }
  }

  /** To host and outside. */
  addIpv6(): void {
    this.host(`ip -6 address add ${HOST_IPV6_ADDRESS}/64 dev eth0 nodad`);
    this.host(`ip -6 route add default via ${OUTSIDE_IPV6_ADDRESS}`);
    this.outside(`ip -6 address add ${OUTSIDE_IPV6_ADDRESS}/64 dev wan nodad`);
    this.outside(`ip -6 address add ${FAR_IPV6_ADDRESS}/128 dev lo nodad`);
  }

  /** Output of a command in the host's namespace; words are separated by blanks. */
  host(...command: readonly string[]): string {
    return run(this.hostPath, command);
  }

  outside(...command: readonly string[]): string {
    return run(this.outsidePath, command);
  }

  async openNetwork(
    engineId = 'lab',
    runDir = this.runDir,
    stateDir = this.stateDir,
  ): Promise<NetworkProcess> {
    const args = [runDir, stateDir, engineId];
    return new NetworkProcess(await this.#start(this.hostPath, 'network-process.ts', args));
  }

  serve(namespacePath: string, port: number, address = '0.0.0.0'): Promise<Program> {
    return this.#start(namespacePath, 'peer.ts', ['serve', String(port), address]);
  }

  /** Connected, or with an error as its first line. */
  connect(namespacePath: string, protocol: 'tcp' | 'udp', host: string, port: number): Promise<Program> {
    return this.#start(namespacePath, 'peer.ts', ['connect', protocol, host, String(port)]);
  }

  /** The address that a server sees the client come from, or the reason why it sees nothing. */
  async ask(namespacePath: string, protocol: 'tcp' | 'udp', host: string, port: number): Promise<string> {
    const args = ['connect', protocol, host, String(port)];
    const client = this.#spawn(namespacePath, 'peer.ts', args);
    try {
      const first = await client.line();
      if (first !== 'ready') return first;
      client.send('hello');
      const answer = await client.line(protocol === 'udp' ? 1000 : REPLY_TIMEOUT_MS);
      return answer.replace(' hello', '');
    } finally {
      await client.kill();
    }
  }

  get pinsDir(): string {
    return join(this.runDir, 'netns');
  }

  pins(): string[] {
    return readdirSync(this.pinsDir);
  }

  /** Of containers, in the network's own namespace. */
  endpointLinks(): string[] {
    return run(join(this.pinsDir, 'n-local'), ['ip -o link']).match(/: v[0-9a-f]{8}@/g) ?? [];
  }

  /** As many as the host's firewall knows. */
  publishedPorts(): number {
    const table = this.host('nft -j list map ip tsswarm_lab published');
    return JSON.parse(table).nftables[1].map.elem?.length ?? 0;
  }

  /** What a network leaves on the machine when it is not taken down. */
  traces(): { links: string; tables: string; mounts: string[]; forwarding: string[] } {
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    return {
      links: this.host('ip -o link').replace(/NO-CARRIER,|LOWER_UP|state \S+|qlen \d+/g, ''),
      tables: this.host('nft list ruleset'),
      mounts: mounts.filter((line) => line.includes(this.runDir)),
      forwarding: ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'].map((name) =>
        this.host(`sysctl -n ${name}`),
      ),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) await program.kill();
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
      const path = line.split(' ')[4] ?? '';
      if (path.startsWith(this.#folder)) removeNamespace(path);
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #start(namespacePath: string, script: string, args: readonly string[]): Promise<Program> {
    const program = this.#spawn(namespacePath, script, args);
    const first = await program.line();
    if (first !== 'ready') throw new Error(`${script} ${args.join(' ')}: ${first}`);
    return program;
  }

  #spawn(namespacePath: string, script: string, args: readonly string[]): Program {
    const program = new Program(namespacePath, script, args);
    this.#programs.push(program);
    return program;
  }
}

/** Waits until it holds; the test fails when it never does. */
export async function eventually(holds: () => boolean): Promise<void> {
  const deadline = Date.now() + REPLY_TIMEOUT_MS;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`not within ${REPLY_TIMEOUT_MS} ms: ${holds}`);
    await setImmediate();
  }
}

export function run(namespacePath: string, command: readonly string[]): string {
  const words = command.join(' ').split(' ');
  return execFileSync('nsenter', [`--net=${namespacePath}`, ...words], { encoding: 'utf8' });
}
