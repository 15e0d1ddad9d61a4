// A machine of the simulation, and the daemon on it: node/membership.ts as far as it concerns roles, certificates and
// the manager. The session is the real one, with a worker that has nothing to do.

import { Redescription, runSessions } from '../../agent/session/session.ts';
import type { Worker } from '../../agent/worker/worker.ts';
import { type Clock, sleep } from '../../core/clock.ts';
import { messageOf, SwarmError } from '../../core/errors.ts';
import { emptyNodeDescription, type NodeRole } from '../../core/generated/objects.ts';
import type { Bootstrap } from '../../manager/bootstrap.ts';
import type { CertificateTool } from '../../manager/ca/certificate-tool.ts';
import { IdentityHolder } from '../../manager/identity-holder.ts';
import { TakenOutError } from '../../manager/join-managers.ts';
import { trustOf } from '../../node/certificate-files.ts';
import { askManagers, CALL_LIMIT_MS, type Managers, requestCertificate } from '../../node/manager-calls.ts';
import { ManagerList } from '../../node/manager-list.ts';
import { RenewalTimer } from '../../node/renewal-timer.ts';
import type { ClusterNews } from '../../proto/generated/dispatcher.ts';
import { MembershipService } from '../../proto/generated/membership.ts';
import { type Channel, createClient, withChannel } from '../../rpc/client.ts';
import type { TlsIdentity } from '../../rpc/tls.ts';
import { SimManager, type SimManagerOptions } from './member-manager.ts';
import { SimProcess } from './sim-calls.ts';
import type { SimDisk } from './sim-disk.ts';

const OWN_CERTIFICATE_POLL_MS = 20;
const OWN_CERTIFICATE_POLLS = 250;
const ADOPT_RETRY_MS = 2_000;
const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 10_000;
const STOP_LIMIT_MS = 10_000;

/** What is on a machine's disk of its membership. */
export interface Membership {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly managers: readonly string[];
  readonly founding?: Bootstrap;
}

/** What survives a process. */
export class MemberMachine {
  readonly name: string;
  readonly address: string;
  disk: SimDisk;
  membership: Membership | undefined;
  tls: TlsIdentity | undefined;
  node: MemberNode | undefined;
  skewMs = 0;

  constructor(name: string, address: string, disk: SimDisk) {
    this.name = name;
    this.address = address;
    this.disk = disk;
  }
}

export interface MemberNodeOptions
  extends Pick<SimManagerOptions, 'network' | 'tool' | 'chance' | 'randomBytes' | 'checks' | 'openPeers'> {
  readonly machine: MemberMachine;
  readonly newDisk: () => SimDisk;
  readonly tool: CertificateTool;
}

const IDLE_WORKER = {
  hearPayloads: () => {},
  assign: () => {},
  statuses: () => [],
  onStatus: () => {},
  logs: () => [],
} as unknown as Worker;

export class MemberNode {
  readonly process: SimProcess;
  manager: SimManager | undefined;
  readonly #options: MemberNodeOptions;
  readonly #holder = new IdentityHolder();
  readonly #managers: ManagerList;
  readonly #stopping = new AbortController();
  readonly #redescription = new Redescription();
  #managerProcess: SimProcess | undefined;
  #supervision: { readonly stop: () => Promise<void> } | undefined;
  #changes: Promise<void> = Promise.resolve();
  readonly #renewal: RenewalTimer;
  #cancelAdoption = () => {};
  #news: ClusterNews | undefined;
  #attemptsWithoutNews = 0;

  constructor(options: MemberNodeOptions) {
    this.#options = options;
    const { machine, network, chance } = options;
    this.process = new SimProcess(machine.name, network.time, () => machine.skewMs);
    this.#managers = new ManagerList(this.#membership.managers, chance);
    this.#renewal = new RenewalTimer(
      {
        clock: this.#clock,
        random: chance,
        certificate: () => this.#holder.current.certificate,
        renew: () => this.#renewInTime(),
        onFailure: refused,
      },
      this.#stopping.signal,
    );
  }

  get role(): NodeRole {
    return this.#supervision === undefined ? 'worker' : 'manager';
  }

  async start(): Promise<void> {
    const { tls } = this.#options.machine;
    if (tls !== undefined) this.#holder.set(tls);
    if (tls === undefined || trustOf(tls).role === 'manager') this.#startManager();
    const isExpired = tls !== undefined && trustOf(tls).expiresAtMs < this.#clock.nowMs();
    if (tls === undefined || (isExpired && this.role === 'manager')) {
      this.#keep(await this.#ownCertificate());
      await this.#runAsCertified();
    }
    void runSessions(
      {
        nodeId: this.#membership.nodeId,
        connect: () => this.#connectAgent(),
        worker: IDLE_WORKER,
        address: () => this.#options.machine.address,
        redescription: this.#redescription,
        onNews: (news) => this.#follow(news),
        describe: () => ({
          ...emptyNodeDescription,
          hostname: this.#options.machine.name,
          trust: trustOf(this.#holder.current),
        }),
        clock: this.#clock,
        random: this.#options.chance,
      },
      this.#stopping.signal,
    );
    this.#renewal.plan();
  }

  /** As an operator's `leave`: the cluster forgets this node's part in it, and the node ends. */
  async leave(): Promise<void> {
    await askManagers(this.#connect(), this.#others, (channel) =>
      createClient(MembershipService, channel).leaveCluster({}, { timeoutMs: CALL_LIMIT_MS }),
    );
    await this.end();
  }

  /** Ends, and forgets everything. */
  async end(): Promise<void> {
    const { machine } = this.#options;
    this.#stopping.abort();
    await this.#supervision?.stop();
    // A crash has come first, or another order to end.
    if (machine.node !== this) return;
    this.kill();
    machine.disk = this.#options.newDisk();
    machine.tls = undefined;
    machine.membership = undefined;
    machine.node = undefined;
  }

  /** All processes of the machine end at once. */
  kill(): void {
    this.#managerProcess?.die();
    this.process.die();
  }

  /** To the manager of this node. */
  control(): Channel {
    return this.#ownManager();
  }

  #startManager(): void {
    const stopping = new AbortController();
    const supervision = this.#supervise(stopping.signal);
    this.#supervision = {
      stop: async () => {
        stopping.abort();
        await supervision;
      },
    };
  }

  async #supervise(stopping: AbortSignal): Promise<void> {
    for (let backoffMs = BACKOFF_MIN_MS; !stopping.aborted; ) {
      await this.#runManager(stopping);
      if (stopping.aborted) return;
      await sleep(this.#clock, backoffMs, stopping).catch(() => {});
      backoffMs = Math.min(backoffMs * 2, BACKOFF_MAX_MS);
    }
  }

  async #runManager(stopping: AbortSignal): Promise<void> {
    const { machine, network, checks } = this.#options;
    const process = new SimProcess(machine.name, network.time, () => machine.skewMs);
    this.#managerProcess = process;
    const identity = new IdentityHolder();
    const unfollow = this.#holder.follow((current) => identity.set(current));
    const { nodeId, clusterId, founding } = this.#membership;
    const manager = new SimManager({
      ...this.#options,
      process,
      disk: machine.disk,
      nodeId,
      clusterId,
      founding,
      address: machine.address,
      managers: this.#managers.addresses.filter((address) => address !== machine.address),
      identity,
    });
    this.manager = manager;
    let failure: unknown;
    const killed = new Promise<void>((resolve) => process.onDeath(resolve));
    const late = new Promise<void>((resolve) =>
      stopping.addEventListener('abort', () => this.#clock.after(STOP_LIMIT_MS, resolve), { once: true }),
    );
    const run = manager.run(stopping).catch((error) => {
      failure = error;
      checks.ended(error);
    });
    await Promise.race([run, killed, late]);
    unfollow();
    process.die();
    this.manager = undefined;
    if (!this.process.isAlive) return;
    machine.disk = failure instanceof TakenOutError ? this.#options.newDisk() : machine.disk.crash('process');
  }

  async #ownCertificate(): Promise<TlsIdentity> {
    for (let attempt = 1; ; attempt++) {
      this.#stopping.signal.throwIfAborted();
      const isOthersTurn = !this.#holder.isEmpty && attempt % OWN_CERTIFICATE_POLLS === 0;
      try {
        const channel = isOthersTurn ? this.#connectToOthers() : this.#ownManager();
        return await withChannel(channel, (open) => requestCertificate(this.#options.tool, open));
      } catch (error) {
        if (!(error instanceof SwarmError)) throw error;
        await sleep(this.#clock, OWN_CERTIFICATE_POLL_MS, this.#stopping.signal);
      }
    }
  }

  get #others(): Managers {
    return { count: this.#managers.addresses.length, next: () => this.#connectToOthers() };
  }

  #keep(tls: TlsIdentity): void {
    const { checks, machine } = this.#options;
    checks.owns(this.#membership.nodeId, tls);
    machine.tls = tls;
    this.#holder.set(tls);
    const { founding: _, ...membership } = this.#membership;
    machine.membership = membership;
  }

  #follow(news: ClusterNews): void {
    this.#attemptsWithoutNews = 0;
    this.#news = news;
    this.#adoptSoon();
  }

  #adoptSoon(): void {
    this.#cancelAdoption();
    this.#changes = this.#changes.then(async () => {
      const news = this.#news;
      if (news === undefined || this.#stopping.signal.aborted) return;
      try {
        await this.#adopt(news);
      } catch (error) {
        if (this.#stopping.signal.aborted) return;
        if (!(error instanceof SwarmError)) throw error;
        this.#cancelAdoption = this.#clock.after(ADOPT_RETRY_MS, () => this.#adoptSoon());
      }
    });
  }

  async #adopt({ managers, roots, role, renewCertificate }: ClusterNews): Promise<void> {
    const addresses = managers.map(({ address }) => address);
    this.#options.machine.membership = { ...this.#membership, managers: addresses };
    this.#managers.set(addresses);
    const { current } = this.#holder;
    if (roots !== current.roots) {
      this.#keep({ ...current, roots });
      this.#redescription.announce();
    }
    const isOtherRole = trustOf(current).role !== role;
    if (renewCertificate || isOtherRole) await this.#renew(role);
    await this.#runAsCertified();
  }

  async #runAsCertified(): Promise<void> {
    if (trustOf(this.#holder.current).role === 'manager') {
      if (this.#supervision === undefined) this.#startManager();
    } else if (this.#supervision !== undefined) await this.#endManager();
  }

  async #endManager(): Promise<void> {
    const { machine, newDisk } = this.#options;
    await this.#supervision?.stop();
    this.#supervision = undefined;
    machine.disk = newDisk();
  }

  async #renew(role: NodeRole): Promise<void> {
    const first = role === 'manager' ? this.#connect() : this.#connectToOthers();
    const tls = await askManagers(first, this.#others, (channel) =>
      requestCertificate(this.#options.tool, channel),
    );
    this.#keep(tls);
    this.#redescription.announce();
    this.#renewal.plan();
  }

  #renewInTime(): Promise<void> {
    const renewal = this.#changes.then(async () => {
      if (this.#stopping.signal.aborted) return;
      await this.#renew(this.role);
      await this.#runAsCertified();
    });
    this.#changes = renewal.catch(() => {});
    return renewal;
  }

  #connect(): Channel {
    return this.#supervision === undefined ? this.#connectToOthers() : this.#ownManager();
  }

  #connectAgent(): Channel {
    const isOwnTurn = this.#attemptsWithoutNews++ % 2 === 0;
    return isOwnTurn ? this.#connect() : this.#connectToOthers();
  }

  #ownManager(): Channel {
    const doors = () => (this.manager?.isOpen ? this.manager.doors : undefined);
    return this.#options.network.channel(this.process, doors, () => undefined);
  }

  #connectToOthers(): Channel {
    const { network, machine } = this.#options;
    const own = machine.address;
    const others = this.#managers.addresses.some((address) => address !== own);
    if (!others && this.#supervision !== undefined) return this.#ownManager();
    let address = this.#managers.next();
    if (others && address === own) address = this.#managers.next();
    if (address === undefined)
      throw new SwarmError('unavailable', 'this node knows no manager of its cluster');
    const dialled = address;
    const { clusterId } = this.#membership;
    const identity = this.#holder.current;
    return network.channel(
      this.process,
      () => network.doors.get(dialled),
      () => ({ identity, expected: { clusterId } }),
    );
  }

  get #clock(): Clock {
    return this.process.clock;
  }

  get #membership(): Membership {
    const { membership, name } = this.#options.machine;
    if (membership === undefined) throw new Error(`${name} is in no cluster`);
    return membership;
  }
}

/** What failed, where anything may fail. */
export function refused(error: unknown): void {
  const isAborted = error instanceof DOMException && error.name === 'AbortError';
  if (!isAborted && !(error instanceof SwarmError)) throw new Error(messageOf(error), { cause: error });
}
