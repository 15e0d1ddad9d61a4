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
import { CertifiedRole, type CertifiedRoleOptions } from '../../node/certified-role.ts';
import type { Channel } from '../../rpc/client.ts';
import type { TlsIdentity } from '../../rpc/tls.ts';
import { SimManager, type SimManagerOptions } from './member-manager.ts';
import { SimProcess } from './sim-calls.ts';
import type { SimDisk } from './sim-disk.ts';

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
  readonly #stopping = new AbortController();
  readonly #redescription = new Redescription();
  #managerProcess: SimProcess | undefined;
  readonly #role: CertifiedRole;

  constructor(options: MemberNodeOptions) {
    this.#options = options;
    const { machine, network } = options;
    this.process = new SimProcess(machine.name, network.time, () => machine.skewMs);
    this.#role = new CertifiedRole(this.#roleOptions(), this.#stopping.signal);
  }

  get role(): NodeRole {
    return this.#role.role;
  }

  async start(): Promise<void> {
    if (!this.#role.start(this.#options.machine.tls)) await this.#role.certify();
    void runSessions(
      {
        nodeId: this.#membership.nodeId,
        connect: () => this.#role.connectAgent(),
        worker: IDLE_WORKER,
        address: () => this.#options.machine.address,
        redescription: this.#redescription,
        onNews: (news) => this.#role.follow(news),
        describe: () => ({
          ...emptyNodeDescription,
          hostname: this.#options.machine.name,
          trust: trustOf(this.#role.holder.current),
        }),
        clock: this.#clock,
        random: this.#options.chance,
      },
      this.#stopping.signal,
    );
    this.#role.planRenewal();
  }

  /** As an operator's `leave`: the cluster forgets this node's part in it, and the node ends. */
  async leave(): Promise<void> {
    await this.#role.leaveCluster();
    await this.end();
  }

  /** Ends, and forgets everything. */
  async end(): Promise<void> {
    const { machine } = this.#options;
    this.#stopping.abort();
    await this.#role.stopManager();
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

  #startManager(): { readonly stop: () => Promise<void> } {
    const stopping = new AbortController();
    const supervision = this.#supervise(stopping.signal);
    return {
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
    const unfollow = this.#role.holder.follow((current) => identity.set(current));
    const { nodeId, clusterId, founding } = this.#membership;
    const manager = new SimManager({
      ...this.#options,
      process,
      disk: machine.disk,
      nodeId,
      clusterId,
      founding,
      address: machine.address,
      managers: this.#role.managers.filter((address) => address !== machine.address),
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

  #roleOptions(): CertifiedRoleOptions {
    const { machine, tool, chance, newDisk } = this.#options;
    return {
      clock: this.process.clock,
      random: chance,
      tool,
      managers: this.#membership.managers,
      ownAddress: () => machine.address,
      connectToOwnManager: () => this.#ownManager(),
      connectTo: (address) => this.#connectTo(address),
      startManager: () => this.#startManager(),
      forgetManager: () => {
        machine.disk = newDisk();
      },
      keep: (tls) => this.#keep(tls),
      remember: (managers) => {
        machine.membership = { ...this.#membership, managers };
      },
      changeLock: async () => false,
      onChange: () => this.#redescription.announce(),
      onSuccess: () => {},
      onFailure: (_subject, error) => refused(error),
    };
  }

  #keep(tls: TlsIdentity): void {
    const { checks, machine } = this.#options;
    checks.owns(this.#membership.nodeId, tls);
    machine.tls = tls;
    const { founding: _, ...membership } = this.#membership;
    machine.membership = membership;
  }

  #ownManager(): Channel {
    const doors = () => (this.manager?.isOpen ? this.manager.doors : undefined);
    return this.#options.network.channel(this.process, doors, () => undefined);
  }

  #connectTo(address: string): Channel {
    const { network } = this.#options;
    const { clusterId } = this.#membership;
    const identity = this.#role.holder.current;
    return network.channel(
      this.process,
      () => network.doors.get(address),
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
