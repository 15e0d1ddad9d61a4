// A whole cluster's membership under one seed: machines join, are promoted, demoted, removed, get new roots and new
// certificates, while they crash, lose each other and disagree about the time. Managers have the real log, store, loops and
// handlers (member-manager.ts), nodes the real session (member-node.ts); disk, network, time and keys are simulated.

import type { defaultClusterSpec } from '../../core/defaults.ts';
import type { Node } from '../../core/generated/objects.ts';
import { newId } from '../../core/ids.ts';
import { joinToken, theCluster, trustedRoots } from '../../manager/ca/authority.ts';
import { managersOf } from '../../manager/consensus.ts';
import { trustOf } from '../../node/certificate-files.ts';
import {
  ControlService,
  emptyRotateAuthorityRequest,
  emptyUpdateClusterRequest,
} from '../../proto/generated/control.ts';
import { emptyIssueCertificateRequest, NodeCaService } from '../../proto/generated/membership.ts';
import { PeerService } from '../../proto/generated/raft.ts';
import { requireAllowed } from '../../rpc/caller.ts';
import { type Client, createClient, withChannel } from '../../rpc/client.ts';
import { seededChance } from '../support/faults.ts';
import { Violation } from './core-checks.ts';
import { MemberChecks } from './member-checks.ts';
import type { SimManager } from './member-manager.ts';
import { MemberMachine, MemberNode, type Membership, refused } from './member-node.ts';
import { quickCertificates } from './quick-certificates.ts';
import { EPOCH_MS, SimNetwork, SimProcess } from './sim-calls.ts';
import { type CrashKind, SimDisk } from './sim-disk.ts';
import { SimPeers } from './sim-peers.ts';
import { VirtualTime } from './virtual-time.ts';

// An hour of a certificate, the least that a cluster takes, is so many seconds here.
const CERTIFICATE_HURRY = 120;
const HOUR_MS = 3_600_000;
const START_MS = 60_000;
const HEAL_MS = 120_000;
const SKEW_MAX_MS = 20_000;
const CALL_LIMIT_MS = 10_000;

export class MemberWorld {
  readonly seed: number;
  readonly time = new VirtualTime();
  readonly faults = new Map<string, number>();
  readonly checks: MemberChecks;
  readonly #chance: () => number;
  readonly #network: SimNetwork;
  readonly #machines: MemberMachine[] = [];
  readonly #clusterId: string;
  readonly #tool;
  readonly #peers: SimPeers<SimManager>;
  #isHealed = false;

  constructor(seed: number) {
    this.seed = seed;
    this.#chance = seededChance(seed);
    this.#network = new SimNetwork(this.time, this.#chance);
    this.#peers = new SimPeers({
      network: this.#network,
      chance: this.#chance,
      processOf: (manager) => manager.options.process,
      isConnected: (from, to) => this.#believe(from, to),
      isLost: () => !this.#isHealed && this.#chance() < this.#network.lossRatio,
    });
    this.#clusterId = newId(this.#randomBytes);
    this.#tool = quickCertificates(this.#randomBytes, { hurry: CERTIFICATE_HURRY });
    this.checks = new MemberChecks(
      (nodeId) => this.#machines.find(({ membership }) => membership?.nodeId === nodeId)?.tls,
    );
    const count = 3 + Math.floor(this.#chance() * 4);
    for (let number = 1; number <= count; number++)
      this.#machines.push(new MemberMachine(`m${number}`, `10.0.0.${number}:2377`, this.#newDisk()));
  }

  /** Lives through so much virtual time with faults, then without, and checks everything. Throws a Violation. */
  async run(durationMs: number): Promise<void> {
    await this.#begin();
    if (this.#chance() < 0.5) this.#network.lossRatio = this.#chance() * 0.15;
    this.#planFault();
    await this.#advance(durationMs);
    await this.#heal();
  }

  // --- the beginning ---

  async #begin(): Promise<void> {
    const [first, ...others] = this.#machines as [MemberMachine, ...MemberMachine[]];
    const nodeId = newId(this.#randomBytes);
    const spec = { snapshotInterval: 60, certificateLifeMs: HOUR_MS, heartbeatPeriodMs: 2_000 };
    const founding = { spec, network: {}, availability: 'active', dataPathAddress: '' } as const;
    first.membership = { nodeId, clusterId: this.#clusterId, managers: [first.address], founding };
    this.#start(first);
    await this.#until('the first manager', START_MS, () => first.tls !== undefined);
    const managers = 1 + Math.floor(this.#chance() * Math.min(4, others.length));
    for (const [position, machine] of others.entries())
      void this.#join(machine, position < managers ? 'manager' : 'worker');
    await this.#until('everybody', START_MS, () => this.#problem() === undefined);
  }

  #start(machine: MemberMachine): void {
    const node = new MemberNode({
      machine,
      newDisk: () => this.#newDisk(),
      network: this.#network,
      tool: this.#tool,
      chance: this.#chance,
      randomBytes: this.#randomBytes,
      checks: this.checks,
      openPeers: (manager, self, events) => this.#peers.open(manager, self, events),
    });
    machine.node = node;
    node.start().catch(refused);
  }

  /** As node/joining.ts: with a token, from any manager. */
  async #join(machine: MemberMachine, role: 'manager' | 'worker'): Promise<void> {
    const known = this.#pick(this.#openManagers());
    if (machine.membership !== undefined || known === undefined || known.store.view.cluster.size === 0)
      return;
    const { secrets } = theCluster(known.store.view);
    const client = new SimProcess(machine.name, this.time, () => machine.skewMs);
    const { keyPem, requestPem } = await this.#tool.createKeyAndRequest();
    const identity = { certificate: '', key: '', roots: trustedRoots(secrets) };
    const channel = this.#network.channel(
      client,
      () => this.#network.doors.get(known.options.address),
      () => ({ identity, expected: {} }),
    );
    try {
      const answer = await createClient(NodeCaService, channel).issueCertificate(
        { ...emptyIssueCertificateRequest, token: joinToken(secrets, role), request: requestPem },
        { timeoutMs: CALL_LIMIT_MS },
      );
      // It may have joined by another call meanwhile.
      if (machine.membership !== undefined) return;
      machine.membership = {
        nodeId: answer.nodeId,
        clusterId: this.#clusterId,
        managers: [known.options.address],
      };
      machine.tls = { certificate: answer.certificate, key: keyPem, roots: answer.roots };
      this.#start(machine);
    } catch (error) {
      refused(error);
    } finally {
      client.die();
    }
  }

  #newDisk(): SimDisk {
    return new SimDisk({
      chance: this.#chance,
      schedule: (complete) => this.time.after(0.2 * (0.5 + this.#chance()), complete),
    });
  }

  readonly #randomBytes = (count: number): Buffer =>
    Buffer.from(Array.from({ length: count }, () => Math.floor(this.#chance() * 256)));

  // --- consensus ---

  #believe(from: SimManager, to: SimManager): boolean {
    const [own, other] = [from.doors, to.doors];
    if (this.#network.blocked.has(`${own.process.machine}>${other.process.machine}`)) return false;
    if (own.identity.isEmpty || other.identity.isEmpty) return false;
    try {
      const identity = own.identity.current;
      const expected = { clusterId: this.#clusterId, nodeId: other.nodeId };
      this.#network.requireTrusted(own.process, { identity, expected }, other);
      const caller = other.identify(this.#network.shown(other, identity));
      requireAllowed(PeerService.exchange, caller);
      other.onAdmitted(caller);
      return true;
    } catch (error) {
      refused(error);
      return false;
    }
  }

  // --- faults ---

  #planFault(): void {
    this.time.after(200 + this.#chance() * 3_000, () => {
      if (this.#isHealed) return;
      this.#fault();
      this.#planFault();
    });
  }

  #fault(): void {
    const machine = this.#pick(this.#machines) as MemberMachine;
    const member = this.#pick(this.#machines.filter(({ membership }) => membership !== undefined));
    const blank = this.#machines.find(({ membership }) => membership === undefined);
    const actions: Record<string, () => unknown> = {
      crash: () => this.#crash(machine, 'process', this.#chance() * 3_000),
      power: () => this.#crash(machine, 'power', this.#chance() * 8_000),
      away: () => this.#crash(machine, 'process', 20_000 + this.#chance() * 30_000),
      blackout: () => {
        if (this.#chance() < 0.3)
          for (const each of this.#machines) this.#crash(each, 'power', this.#chance() * 2_000);
      },
      cut: () => this.#cut(),
      isolate: () => this.#isolate(machine),
      mend: () => this.#network.blocked.clear(),
      heal: () => this.#network.blocked.clear(),
      clock: () => {
        machine.skewMs = (this.#chance() - 0.5) * 2 * SKEW_MAX_MS;
      },
      transfer: () => void this.#leader?.host.transferLeadership().catch(refused),
      join: () => blank && this.#join(blank, this.#chance() < 0.5 ? 'manager' : 'worker'),
      promote: () => this.#wish('manager'),
      demote: () => this.#wish('worker'),
      role: () => this.#wish(this.#chance() < 0.5 ? 'manager' : 'worker'),
      leave: () => member?.node?.leave().catch(refused),
      remove: () => this.#remove(),
      rotate: () => this.#operate((control) => control.rotateAuthority(emptyRotateAuthorityRequest)),
      life: () => this.#configure({ certificateLifeMs: Math.round(HOUR_MS * (1 + this.#chance() * 3)) }),
      dead: () => this.#configure({ deadManagerAfterMs: this.#chance() < 0.5 ? 0 : 15_000 }),
    };
    const names = Object.keys(actions);
    const name = names[Math.floor(this.#chance() * names.length)] as string;
    this.faults.set(name, (this.faults.get(name) ?? 0) + 1);
    actions[name]?.();
  }

  #crash(machine: MemberMachine, kind: CrashKind, downMs: number): void {
    if (machine.node === undefined) return;
    machine.node.kill();
    machine.node = undefined;
    machine.disk = machine.disk.crash(kind);
    this.time.after(downMs, () => {
      if (machine.node === undefined && machine.membership !== undefined) this.#start(machine);
    });
  }

  #cut(): void {
    const isOneWay = this.#chance() < 0.3;
    const side = new Map(this.#machines.map((machine) => [machine, this.#chance() < 0.5]));
    for (const from of this.#machines)
      for (const to of this.#machines)
        if (side.get(from) !== side.get(to) && (!isOneWay || side.get(from) === true))
          this.#network.blocked.add(`${from.name}>${to.name}`);
  }

  #isolate(machine: MemberMachine): void {
    for (const other of this.#machines)
      if (other !== machine) {
        this.#network.blocked.add(`${machine.name}>${other.name}`);
        this.#network.blocked.add(`${other.name}>${machine.name}`);
      }
  }

  /** Over the socket of any manager, as an operator does. */
  async #operate(act: (control: Client<typeof ControlService>) => Promise<unknown>): Promise<void> {
    const machine = this.#pick(this.#machines.filter(({ node }) => node?.manager?.isOpen === true));
    if (machine?.node === undefined) return;
    try {
      await withChannel(machine.node.control(), (channel) => act(createClient(ControlService, channel)));
    } catch (error) {
      refused(error);
    }
  }

  #wish(desiredRole: 'manager' | 'worker'): Promise<void> {
    return this.#operate(async (control) => {
      const { nodes } = await control.listNodes({}, { timeoutMs: CALL_LIMIT_MS });
      const node = this.#pick(nodes.filter(({ spec }) => spec.desiredRole !== desiredRole));
      if (node !== undefined) await setRole(control, node, desiredRole);
    });
  }

  #remove(): Promise<void> {
    return this.#operate(async (control) => {
      const { nodes } = await control.listNodes({}, { timeoutMs: CALL_LIMIT_MS });
      const node = this.#pick(nodes.filter(({ role }) => role === 'worker'));
      if (node !== undefined)
        await control.removeNode({ node: node.id, force: true }, { timeoutMs: CALL_LIMIT_MS });
    });
  }

  #configure(change: Partial<typeof defaultClusterSpec>): Promise<void> {
    return this.#operate(async (control) => {
      const { cluster } = await control.getCluster({}, { timeoutMs: CALL_LIMIT_MS });
      const spec = { ...cluster.spec, ...change };
      await control.updateCluster(
        { ...emptyUpdateClusterRequest, version: cluster.meta.version, spec },
        { timeoutMs: CALL_LIMIT_MS },
      );
    });
  }

  // --- the end ---

  /** All faults end, and operators do what is left to them: let expired certificates in, and clear removed nodes away. */
  async #heal(): Promise<void> {
    this.#isHealed = true;
    this.#network.blocked.clear();
    this.#network.lossRatio = 0;
    for (const machine of this.#machines) {
      machine.skewMs = 0;
      if (machine.node === undefined && machine.membership !== undefined) this.#start(machine);
    }
    const acceptExpiredUntilMs = EPOCH_MS + Math.round(this.time.nowMs) + 2 * HEAL_MS;
    await this.#until('rest', HEAL_MS, () => {
      const leader = this.#leader;
      if (leader === undefined || leader.store.view.cluster.size === 0) return false;
      const { spec } = theCluster(leader.store.view);
      if (spec.acceptExpiredUntilMs !== acceptExpiredUntilMs)
        void this.#configure({ acceptExpiredUntilMs, deadManagerAfterMs: 0 });
      for (const { node, membership } of this.#machines)
        if (node !== undefined && membership !== undefined && this.#isLost(membership, leader))
          void node.end().catch(refused);
      for (const id of this.#neverCame(leader)) void this.#giveUp(id);
      return this.#problem() === undefined;
    });
  }

  /** It was removed, or every manager that it knows has become something else while it was away. */
  #isLost({ nodeId, managers }: Membership, { store, host }: SimManager): boolean {
    const node = store.view.node.get(nodeId);
    if (node === undefined) return true;
    const known = [...store.view.node.values()].some(
      ({ role, managerStatus }) => role === 'manager' && managers.includes(managerStatus?.address ?? ''),
    );
    const isMember = managersOf(host.status).some((member) => member.nodeId === nodeId);
    return !known && !isMember && node.status.state !== 'ready';
  }

  /** Nodes whose first certificate was lost on its way: they are in the list, and no machine is theirs. */
  #neverCame({ store }: SimManager): string[] {
    const known = new Set(this.#machines.map(({ membership }) => membership?.nodeId));
    return [...store.view.node.values()].filter(({ id }) => !known.has(id)).map(({ id }) => id);
  }

  #giveUp(nodeId: string): Promise<void> {
    return this.#operate(async (control) => {
      const { nodes } = await control.listNodes({}, { timeoutMs: CALL_LIMIT_MS });
      const node = nodes.find(({ id }) => id === nodeId);
      const others = nodes.filter(({ id, role }) => id !== nodeId && role === 'manager');
      if (node === undefined) return;
      if (node.spec.desiredRole === 'worker')
        await control.removeNode({ node: nodeId, force: true }, { timeoutMs: CALL_LIMIT_MS });
      else if (others.some(({ spec }) => spec.desiredRole === 'manager'))
        await setRole(control, node, 'worker');
      // One of those that were to go has to stay: the last one cannot be demoted.
      else for (const other of others) await setRole(control, other, 'manager');
    });
  }

  /** Why the cluster is not what its operators want it to be. */
  #problem(): string | undefined {
    const leader = this.#leader;
    if (leader === undefined) return 'nobody leads';
    const { view } = leader.store;
    if (view.cluster.size === 0) return 'there is no cluster';
    if (theCluster(view).secrets.rotation !== undefined) return 'the rotation of the root goes on';
    for (const machine of this.#machines) {
      const node = view.node.get(machine.membership?.nodeId ?? '');
      if (machine.membership !== undefined && node === undefined) return `${machine.name} was removed`;
      const problem = node && this.#problemOf(machine, node, leader);
      if (problem !== undefined) return `${machine.name} ${problem}`;
      if (!this.#isHealed && machine.membership === undefined) return `${machine.name} has not joined`;
    }
    if (this.#neverCame(leader).length > 0) return 'there are nodes that never came';
    const managers = [...view.node.values()].filter(({ role }) => role === 'manager').map(({ id }) => id);
    const members = managersOf(leader.host.status);
    const voters = members.filter(({ isVoter }) => isVoter).map(({ nodeId }) => nodeId);
    if (members.length !== voters.length || managers.sort().join() !== voters.sort().join())
      return `managers are ${managers}, members ${JSON.stringify(members)}`;
    return undefined;
  }

  #problemOf({ tls, node: daemon }: MemberMachine, node: Node, leader: SimManager): string | undefined {
    const { spec, role, status, roleMessage } = node;
    if (role !== spec.desiredRole && roleMessage === '') return `is a ${role}, wanted a ${spec.desiredRole}`;
    if (status.state !== 'ready') return `is ${status.state}`;
    if (tls === undefined || daemon === undefined) return 'has no certificate';
    const trust = trustOf(tls);
    if (trust.role !== role) return `shows ${trust.role}, is a ${role}`;
    if (daemon.role !== role) return `runs as ${daemon.role}, is a ${role}`;
    if (trust.expiresAtMs < EPOCH_MS + this.time.nowMs) return 'has an expired certificate';
    if (tls.roots !== trustedRoots(theCluster(leader.store.view).secrets)) return 'believes other roots';
    if (role === 'manager' && daemon.manager?.host.appliedIndex !== leader.host.appliedIndex)
      return 'has not applied everything';
    return undefined;
  }

  async #until(what: string, limitMs: number, isDone: () => boolean): Promise<void> {
    for (const endMs = this.time.nowMs + limitMs; this.time.nowMs < endMs; ) {
      await this.#advance(250);
      if (isDone()) return;
    }
    throw new Violation('liveness', `${what} is not there after ${limitMs} ms: ${this.#problem()}`);
  }

  async #advance(durationMs: number): Promise<void> {
    for (const endMs = this.time.nowMs + durationMs; this.time.nowMs < endMs; ) {
      await this.time.advanceTo(Math.min(endMs, this.time.nowMs + 250));
      if (this.checks.failure !== undefined) throw this.checks.failure;
    }
  }

  #openManagers(): SimManager[] {
    return this.#machines.flatMap(({ node }) => (node?.manager?.isOpen ? [node.manager] : []));
  }

  get #leader(): SimManager | undefined {
    return this.#openManagers()
      .filter(({ host }) => host.leadership.isLeader)
      .sort((a, b) => b.host.leadership.term - a.host.leadership.term)[0];
  }

  /** Every machine on a line, for the report of a failure. */
  describe(): string {
    return this.#machines
      .map((machine) => {
        const { name, membership, tls, node } = machine;
        if (membership === undefined) return `${name}: in no cluster`;
        const trust = tls && trustOf(tls);
        const left = trust && Math.round((trust.expiresAtMs - EPOCH_MS - this.time.nowMs) / 1000);
        const certificate = trust
          ? `${trust.role}, ${left} s left, ${trust.roots.length} roots`
          : 'no certificate';
        const manager = node?.manager;
        const raft = manager?.isOpen
          ? `${manager.host.status.self.id} ${manager.host.status.role} term ${manager.host.status.term} applied ${manager.host.appliedIndex} voters ${manager.host.status.configuration.voters} members ${manager.host.status.configuration.members.map(({ id }) => id)}`
          : '';
        const known = this.#leader?.store.view.node.get(membership.nodeId);
        const wanted = known
          ? `${known.role}/${known.spec.desiredRole} ${known.status.state} ${known.roleMessage}`
          : '-';
        return `${name} ${membership.nodeId.slice(0, 4)}: ${node ? node.role : 'down'}; ${certificate}; ${wanted}; ${raft}`;
      })
      .join('\n');
  }

  #pick<T>(values: readonly T[]): T | undefined {
    return values[Math.floor(this.#chance() * values.length)];
  }
}

async function setRole(
  control: Client<typeof ControlService>,
  { id: nodeId, meta: { version }, spec }: Node,
  desiredRole: Node['role'],
): Promise<void> {
  const request = { nodeId, version, spec: { ...spec, desiredRole }, address: '' };
  await control.updateNode(request, { timeoutMs: CALL_LIMIT_MS });
}
