// Other firewalls of this host: Docker's, ufw, firewalld. An accept in our own tables cannot undo their drop, so what the
// networks of containers need is added to them, where each has a place for it; what needs a decision of the operator is told.
// They load their rules anew at any time: a change of the kernel's ruleset, whoever made it, is reason to look again.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { messageOf } from '../../core/errors.ts';
import type { Logger } from '../../rpc/logger.ts';
import { netfilterFamilies } from '../linux/netfilter.ts';
import { NetlinkSocket, netlinkProtocols } from '../linux/netlink-socket.ts';
import {
  decodeChain,
  decodeGeneration,
  getGeneration,
  type ListedChain,
  listChains,
} from '../linux/nftables.ts';

export interface HostFirewallOptions {
  /** UDP port of the traffic between nodes; undefined: this node is in no cluster. */
  readonly dataPathPort: () => number | undefined;
  /** Called when somebody has changed the kernel's ruleset. */
  readonly onChange: () => void;
  readonly logger: Logger;
}

/** All links between the host and its networks begin so. */
const UPLINKS = 'tsu-+';
const IPTABLES_TABLE = 'filter';
/** By family, as netfilter counts them. */
const IPTABLES: Readonly<Record<number, string>> = { [netfilterFamilies.ipv4]: 'iptables', 10: 'ip6tables' };
const DOCKER_CHAIN = 'DOCKER-USER';
const FIREWALLD_TABLE = 'firewalld';
const COMMENT = ['-m', 'comment', '--comment', 'tsswarm'];
/** What comes out of a network, and what answers it or goes to a published port. */
const FORWARD_RULES = [
  ['-i', UPLINKS],
  ['-o', UPLINKS, '-m', 'conntrack', '--ctstate', 'RELATED,ESTABLISHED,DNAT'],
];
const LOOK_PERIOD_MS = 2_000;
const COMMAND_LIMIT_MS = 10_000;

const run = promisify(execFile);

export class HostFirewall implements AsyncDisposable {
  readonly #options: HostFirewallOptions;
  readonly #tables = new NetlinkSocket(netlinkProtocols.netfilter);
  readonly #timer: NodeJS.Timeout;
  #generation: number | undefined;
  #warnings: readonly string[] = [];
  #looking: Promise<void> = Promise.resolve();

  private constructor(options: HostFirewallOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      this.#looking = this.#looking.then(() => this.#look());
    }, LOOK_PERIOD_MS).unref();
  }

  static async open(options: HostFirewallOptions): Promise<HostFirewall> {
    const firewall = new HostFirewall(options);
    await firewall.#look();
    return firewall;
  }

  /** What still keeps traffic from flowing, as sentences for the operator. */
  get warnings(): readonly string[] {
    return this.#warnings;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
    this.#tables[Symbol.dispose]();
  }

  async #look(): Promise<void> {
    const generation = this.#readGeneration();
    if (generation === this.#generation) return;
    const isFirst = this.#generation === undefined;
    const warnings = await this.#admit();
    for (const warning of warnings)
      if (!this.#warnings.includes(warning))
        this.#options.logger.warn({ warning }, 'the firewall may block containers');
    this.#warnings = warnings;
    // What was changed just now is no reason to look again.
    this.#generation = this.#readGeneration();
    if (!isFirst) this.#options.onChange();
  }

  #readGeneration(): number {
    return decodeGeneration(this.#tables.ask(getGeneration).body);
  }

  /** Adds what is missing; returns what is left to the operator. */
  async #admit(): Promise<string[]> {
    const chains = this.#tables.dump(listChains).map(({ body }) => decodeChain(body));
    const isDropping = (hook: 'forward' | 'input') => (chain: ListedChain) =>
      chain.hook === hook && chain.dropsByDefault && chain.family !== netfilterFamilies.netdev;
    const programOf = ({ table, family }: ListedChain) =>
      table === IPTABLES_TABLE ? IPTABLES[family] : undefined;
    const others = chains.filter((chain) => programOf(chain) === undefined && isDropping('forward')(chain));
    const warnings = others.map(describeForeignChain);
    for (const program of Object.values(IPTABLES)) {
      const own = chains.filter((chain) => programOf(chain) === program);
      if (!own.some(isDropping('forward'))) continue;
      const chain = own.some(({ name }) => name === DOCKER_CHAIN) ? DOCKER_CHAIN : 'FORWARD';
      const what = `chain ${chain} of ${program}`;
      warnings.push(...(await this.#attempt(what, () => admitByIptables(program, chain))));
    }
    if (chains.some(({ table }) => table === FIREWALLD_TABLE))
      warnings.push(...(await this.#attempt('firewalld', admitByFirewalld)));
    const port = this.#options.dataPathPort();
    if (port === undefined) return warnings;
    const guardsInput = chains.some((chain) => programOf(chain) === 'iptables' && isDropping('input')(chain));
    if (guardsInput && !(await acceptsByIptables(port)))
      warnings.push(describeClosedPort('Chain INPUT of iptables', port, `with ufw: ufw allow ${port}/udp`));
    if (chains.some(({ table }) => table === FIREWALLD_TABLE) && !(await acceptsByFirewalld(port)))
      warnings.push(
        describeClosedPort(
          'firewalld',
          port,
          `firewall-cmd --add-port=${port}/udp, and again with --permanent`,
        ),
      );
    return warnings;
  }

  async #attempt(what: string, admit: () => Promise<boolean>): Promise<string[]> {
    try {
      if (await admit())
        this.#options.logger.info({ firewall: what }, 'let the networks of containers pass another firewall');
      return [];
    } catch (error) {
      return [
        `${what} drops what comes from networks of containers, and the rules that would let it pass cannot be added: ${messageOf(error)}`,
      ];
    }
  }
}

/** True when a rule was missing. */
async function admitByIptables(program: string, chain: string): Promise<boolean> {
  let hasAdded = false;
  for (const match of FORWARD_RULES) {
    const rule = [...match, ...COMMENT, '-j', 'ACCEPT'];
    if (await succeeds(program, ['-w', '-C', chain, ...rule])) continue;
    await run(program, ['-w', '-I', chain, '1', ...rule], { timeout: COMMAND_LIMIT_MS });
    hasAdded = true;
  }
  return hasAdded;
}

/** At run time only: what the operator stored stays as it is, and a reload is noticed. */
async function admitByFirewalld(): Promise<boolean> {
  const zone = ['--zone=trusted'];
  if (await succeeds('firewall-cmd', [...zone, `--query-interface=${UPLINKS}`])) return false;
  await run('firewall-cmd', [...zone, `--add-interface=${UPLINKS}`], { timeout: COMMAND_LIMIT_MS });
  return true;
}

async function acceptsByIptables(port: number): Promise<boolean> {
  const { stdout } = await run('iptables', ['-w', '-S'], { timeout: COMMAND_LIMIT_MS }).catch(() => ({
    stdout: '',
  }));
  return stdout
    .split('\n')
    .some((rule) => new RegExp(`-p udp .*dports? [\\d,:]*\\b${port}\\b.* -j ACCEPT`).test(rule));
}

function acceptsByFirewalld(port: number): Promise<boolean> {
  return succeeds('firewall-cmd', [`--query-port=${port}/udp`]);
}

async function succeeds(program: string, args: readonly string[]): Promise<boolean> {
  try {
    await run(program, [...args], { timeout: COMMAND_LIMIT_MS });
    return true;
  } catch {
    // "No" and "cannot say" have the same way out: the attempt to change it tells which.
    return false;
  }
}

function describeForeignChain({ name, table }: ListedChain): string {
  return (
    `Chain ${name} of firewall table ${table} drops forwarded packets unless a rule allows them: ` +
    'without rules that accept what comes from "tsu-*" and what answers to it, containers reach nothing ' +
    'outside this node and their published ports cannot be reached from other machines.'
  );
}

function describeClosedPort(who: string, port: number, remedy: string): string {
  return `${who} drops the traffic between nodes (UDP port ${port}): containers on other nodes are not reached. Let it in, ${remedy}.`;
}
