// Hosts as network namespaces on one bridge, which has a namespace of its own: nothing of this machine is touched.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { eventually } from './eventually.ts';

const SUBNET = '10.99.0';
const IPV6_SUBNET = '2001:db8:99';
const OUTSIDER = 200;

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

function addIpv6To(host: string, address: string): void {
  ip('-n', host, 'address', 'add', `${address}/64`, 'dev', 'eth0', 'nodad');
}

export class NetnsLan implements Disposable {
  /** Names for `ip netns exec`. */
  readonly hosts: readonly string[];
  readonly #bridge: string;
  /** Namespaces that are ours to delete. */
  readonly #made: string[] = [];
  #outsider: string | undefined;

  /** Needs root. `name` must be unique in this process and short; a run that was cut off may have left others. */
  constructor(name: string, count: number) {
    const prefix = `${name}${process.pid}`;
    this.#bridge = `${prefix}-lan`;
    this.hosts = Array.from({ length: count }, (_, position) => `${prefix}-${position + 1}`);
    try {
      this.#make(this.#bridge);
      ip('-n', this.#bridge, 'link', 'add', 'br0', 'type', 'bridge');
      ip('-n', this.#bridge, 'link', 'set', 'br0', 'up');
      for (const [position, host] of this.hosts.entries()) this.#addHost(host, position + 1);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** The address of a host, counted from 0. */
  addressOf(position: number): string {
    return `${SUBNET}.${position + 1}`;
  }

  /** Gives a host another address, `10.99.0.<number>`, and takes the one it had. */
  readdress(position: number, number: number): string {
    const host = this.hosts[position] ?? '';
    ip('-n', host, 'address', 'flush', 'dev', 'eth0', 'scope', 'global');
    ip('-n', host, 'address', 'add', `${SUBNET}.${number}/24`, 'dev', 'eth0');
    return `${SUBNET}.${number}`;
  }

  /** From now on `host` hears nothing of `others`; with `bothWays` they hear nothing of it either. */
  cut(host: number, others: readonly number[], bothWays = true): void {
    this.#drop(host, others);
    if (bothWays) for (const other of others) this.#drop(other, [host]);
  }

  /** Everybody hears everybody again. */
  heal(): void {
    for (const host of this.hosts)
      execFileSync('ip', ['netns', 'exec', host, 'nft', '-f', '-'], {
        // A table has to be there to be deleted.
        input: 'table inet cut {}; delete table inet cut;',
        stdio: ['pipe', 'ignore', 'pipe'],
      });
  }

  /** One more host on the bridge, which is no node. */
  addOutsider(): string {
    const name = `${this.#bridge}-out`;
    this.#addHost(name, OUTSIDER);
    this.#outsider = name;
    return name;
  }

  /** Gives every host an IPv6 address as well. */
  addIpv6(): void {
    for (const [position, host] of this.hosts.entries()) addIpv6To(host, this.ipv6AddressOf(position));
    if (this.#outsider !== undefined) addIpv6To(this.#outsider, this.outsiderIpv6Address);
  }

  /** Of a host, counted from 0. */
  ipv6AddressOf(position: number): string {
    return `${IPV6_SUBNET}::${position + 1}`;
  }

  get outsiderIpv6Address(): string {
    return `${IPV6_SUBNET}::${OUTSIDER}`;
  }

  get outsiderAddress(): string {
    return `${SUBNET}.${OUTSIDER}`;
  }

  /** Runs a program on a host. */
  run(host: string, ...command: readonly string[]): void {
    ip('netns', 'exec', host, ...command);
  }

  /** What a program on a host prints. */
  output(host: string, ...command: readonly string[]): string {
    return execFileSync('ip', ['netns', 'exec', host, ...command], { encoding: 'utf8' });
  }

  /** A process of the host has the TCP port until this is disposed. */
  listen(position: number, port: number): Promise<AsyncDisposable> {
    return this.listenOn(this.hosts[position] ?? '', port);
  }

  /** It gives back what it gets. */
  async listenOn(host: string, port: number): Promise<AsyncDisposable> {
    const args = ['netns', 'exec', host, '/bin/busybox', 'nc', '-ll', '-p', String(port), '-e', 'cat'];
    const child = spawn('ip', args, { stdio: 'ignore' });
    const isListening = () =>
      execFileSync('ip', ['netns', 'exec', host, 'ss', '-Hltn', `sport = :${port}`]).length > 0;
    await eventually(isListening);
    return {
      async [Symbol.asyncDispose]() {
        if (child.exitCode !== null || child.signalCode !== null) return;
        const ended = once(child, 'exit');
        child.kill();
        await ended;
      },
    };
  }

  [Symbol.dispose](): void {
    for (const name of this.#made.splice(0)) ip('netns', 'del', name);
  }

  #make(name: string): void {
    ip('netns', 'add', name);
    this.#made.push(name);
  }

  #addHost(host: string, number: number): void {
    this.#make(host);
    ip(
      '-n',
      this.#bridge,
      'link',
      'add',
      `p${number}`,
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'netns',
      host,
    );
    ip('-n', this.#bridge, 'link', 'set', `p${number}`, 'master', 'br0', 'up');
    ip('-n', host, 'address', 'add', `${SUBNET}.${number}/24`, 'dev', 'eth0');
    ip('-n', host, 'link', 'set', 'eth0', 'up');
    ip('-n', host, 'link', 'set', 'lo', 'up');
  }

  #drop(host: number, others: readonly number[]): void {
    const rules = others.map((other) => `ip saddr ${this.addressOf(other)} drop;`).join(' ');
    const ruleset = `table inet cut { chain in { type filter hook input priority 0; ${rules} }; }`;
    execFileSync('ip', ['netns', 'exec', this.hosts[host] ?? '', 'nft', '-f', '-'], {
      input: ruleset,
      stdio: ['pipe', 'ignore', 'pipe'],
    });
  }
}
