// What this node is in its cluster: its certificate and, by what that says, whether its manager runs. The cluster's news
// and the renewal change it, one after the other. The simulation of members (test/sim/member-node.ts) runs it too.

import { type Clock, type Random, sleep } from '../core/clock.ts';
import { SwarmError } from '../core/errors.ts';
import type { NodeRole } from '../core/generated/objects.ts';
import type { CertificateTool } from '../manager/ca/certificate-tool.ts';
import { IdentityHolder } from '../manager/identity-holder.ts';
import type { ClusterNews } from '../proto/generated/dispatcher.ts';
import { MembershipService } from '../proto/generated/membership.ts';
import { type Channel, createClient, withChannel } from '../rpc/client.ts';
import type { TlsIdentity } from '../rpc/tls.ts';
import { trustOf } from './certificate-files.ts';
import { askManagers, CALL_LIMIT_MS, requestCertificate } from './manager-calls.ts';
import { ManagerList } from './manager-list.ts';
import { RenewalTimer } from './renewal-timer.ts';

export interface CertifiedRoleOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly tool: Pick<CertificateTool, 'createKeyAndRequest'>;
  /** Addresses of the managers that the node knows at first. */
  readonly managers: readonly string[];
  /** Under which the cluster knows this node's manager. */
  readonly ownAddress: () => string;
  readonly connectToOwnManager: () => Channel;
  readonly connectTo: (address: string) => Channel;
  /** Runs the manager until it is stopped. */
  readonly startManager: () => { readonly stop: () => Promise<void> };
  /** Erases what the manager has kept: the node may become one again, as another member. */
  readonly forgetManager: () => void;
  /** On the disk, before it is used. */
  readonly keep: (identity: TlsIdentity) => void;
  readonly remember: (managers: readonly string[], ownAddress: string) => void;
  /** To the key that a manager's keys are locked with, empty for none. True: `keep` uses it now, and has not done so before. */
  readonly changeLock: (unlockKey: string) => Promise<boolean>;
  /** What the node shows or believes has changed. */
  readonly onChange: () => void;
  readonly onSuccess: (subject: RoleSubject) => void;
  /** Something did not work, and is tried again. What is thrown here is a mistake of the program. */
  readonly onFailure: (subject: RoleSubject, error: unknown, retryMs: number) => void;
}

/** What may fail: to get the certificate without which nothing begins, to follow the news, to renew the certificate. */
export type RoleSubject = 'first certificate' | 'news' | 'renewal';

const OWN_CERTIFICATE_POLL_MS = 20;
// The others are asked every few seconds: the own one may be waiting for a leader meanwhile.
const OTHERS_PERIOD_MS = 5_000;
const ADOPT_RETRY_MS = 2_000;

export class CertifiedRole {
  readonly holder = new IdentityHolder();
  readonly #options: CertifiedRoleOptions;
  readonly #signal: AbortSignal;
  readonly #managers: ManagerList;
  readonly #renewal: RenewalTimer;
  #manager: { readonly stop: () => Promise<void> } | undefined;
  #changes: Promise<void> = Promise.resolve();
  #news: ClusterNews | undefined;
  #cancelAdoption = () => {};
  #attemptsWithoutNews = 0;

  /** Nothing changes any more when the signal has aborted. */
  constructor(options: CertifiedRoleOptions, signal: AbortSignal) {
    const { clock, random, managers, onFailure } = options;
    this.#options = options;
    this.#signal = signal;
    this.#managers = new ManagerList(managers, random);
    this.#renewal = new RenewalTimer(
      {
        clock,
        random,
        certificate: () => this.holder.current.certificate,
        renew: () => this.#renewInTime(),
        onFailure: (error, retryMs) => onFailure('renewal', error, retryMs),
      },
      signal,
    );
    signal.addEventListener('abort', () => this.#cancelAdoption(), { once: true });
  }

  /** What runs, which follows what the certificate says. */
  get role(): NodeRole {
    return this.#manager === undefined ? 'worker' : 'manager';
  }

  get managers(): readonly string[] {
    return this.#managers.addresses;
  }

  /** What the cluster has said last; undefined before it has said anything. */
  get news(): ClusterNews | undefined {
    return this.#news;
  }

  /**
   * Takes up the certificate that the node has, if any, and starts its manager. False: it cannot be used, `certify` has to
   * get another one.
   */
  start(identity: TlsIdentity | undefined): boolean {
    if (identity === undefined) {
      this.#startManager();
      return false;
    }
    this.holder.set(identity);
    const { role, expiresAtMs } = trustOf(identity);
    if (role === 'manager') this.#startManager();
    // After a long time off: a manager has what it takes to be believed again, without anybody's help.
    return role !== 'manager' || expiresAtMs >= this.#options.clock.nowMs();
  }

  /**
   * From the manager of this node, however long it takes to be there: without it there is nothing to do. One that has to take
   * up the log first cannot while its certificate is expired; others can let it in then.
   */
  async certify(): Promise<void> {
    this.#keep(await this.#firstCertificate());
    await this.#runAsCertified();
  }

  /** The certificate is renewed in its time from now on. */
  planRenewal(): void {
    this.#renewal.plan();
  }

  /** News are followed one after the other; the last of them say what is true. */
  follow(news: ClusterNews): void {
    this.#attemptsWithoutNews = 0;
    this.#news = news;
    this.#adoptSoon();
  }

  /** The cluster forgets this node's part in it. Rejects when the managers refuse or cannot be reached. */
  async leaveCluster(): Promise<void> {
    await this.#ask(this.#connect(), (channel) =>
      createClient(MembershipService, channel).leaveCluster({}, { timeoutMs: CALL_LIMIT_MS }),
    );
  }

  /** Resolves when no change is under way. */
  idle(): Promise<void> {
    return this.#changes;
  }

  async stopManager(): Promise<void> {
    await this.#manager?.stop();
    this.#manager = undefined;
  }

  /** For the agent: a manager that is in trouble must not keep its node from the cluster. */
  connectAgent(): Channel {
    const isOwnTurn = this.#attemptsWithoutNews++ % 2 === 0;
    return isOwnTurn ? this.#connect() : this.#connectToOthers();
  }

  #startManager(): void {
    this.#manager = this.#options.startManager();
  }

  async #firstCertificate(): Promise<TlsIdentity> {
    const { clock, tool, onFailure, connectToOwnManager } = this.#options;
    let othersAtMs = clock.elapsedMs() + OTHERS_PERIOD_MS;
    for (;;) {
      this.#signal.throwIfAborted();
      const isOthersTurn = !this.holder.isEmpty && clock.elapsedMs() >= othersAtMs;
      if (isOthersTurn) othersAtMs = clock.elapsedMs() + OTHERS_PERIOD_MS;
      try {
        const channel = isOthersTurn ? this.#connectToOthers() : connectToOwnManager();
        return await withChannel(channel, (open) => requestCertificate(tool, open));
      } catch (error) {
        onFailure('first certificate', error, OWN_CERTIFICATE_POLL_MS);
        await sleep(clock, OWN_CERTIFICATE_POLL_MS, this.#signal);
      }
    }
  }

  #keep(identity: TlsIdentity): void {
    this.#options.keep(identity);
    this.holder.set(identity);
  }

  #adoptSoon(): void {
    const { clock, onSuccess, onFailure } = this.#options;
    this.#cancelAdoption();
    this.#changes = this.#changes.then(async () => {
      const news = this.#news;
      if (news === undefined || this.#signal.aborted) return;
      try {
        await this.#adopt(news);
        onSuccess('news');
      } catch (error) {
        if (this.#signal.aborted) return;
        onFailure('news', error, ADOPT_RETRY_MS);
        this.#cancelAdoption = clock.after(ADOPT_RETRY_MS, () => this.#adoptSoon());
      }
    });
  }

  async #adopt(news: ClusterNews): Promise<void> {
    const { remember, changeLock, onChange } = this.#options;
    const { roots, role, renewCertificate, unlockKey, address } = news;
    const managers = news.managers.map((manager) => manager.address);
    this.#managers.set(managers);
    remember(managers, address);
    // Also when other news have come meanwhile: to those the lock is as it was.
    if (role === 'manager' && (await changeLock(unlockKey))) this.#keep(this.holder.current);
    // What has come meanwhile is adopted next.
    if (news !== this.#news) return;
    const { current } = this.holder;
    if (roots !== current.roots) {
      this.#keep({ ...current, roots });
      onChange();
    }
    if (renewCertificate || trustOf(current).role !== role) await this.#renew(role);
    await this.#runAsCertified();
  }

  /** In its turn among other changes. */
  #renewInTime(): Promise<void> {
    const renewal = this.#changes.then(async () => {
      if (this.#signal.aborted) return;
      await this.#renew(this.role);
      // It may have been demoted while it heard nobody: its manager has no part in anything any more.
      await this.#runAsCertified();
    });
    this.#changes = renewal.catch(() => {});
    return renewal;
  }

  async #renew(role: NodeRole): Promise<void> {
    const { tool, onChange, onSuccess } = this.#options;
    // Its own manager finds the leader. That it was demoted others may know sooner.
    const first = role === 'manager' ? this.#connect() : this.#connectToOthers();
    this.#keep(await this.#ask(first, (channel) => requestCertificate(tool, channel)));
    onChange();
    onSuccess('renewal');
    this.#renewal.plan();
  }

  /** What the certificate says is what the managers have answered last, which may be newer than the last news. */
  async #runAsCertified(): Promise<void> {
    if (trustOf(this.holder.current).role === this.role) return;
    if (this.role === 'worker') return this.#startManager();
    await this.stopManager();
    this.#options.forgetManager();
  }

  #ask<T>(first: Channel, use: (channel: Channel) => Promise<T>): Promise<T> {
    const next = () => this.#connectToOthers();
    return askManagers(first, { count: this.#managers.addresses.length, next }, use);
  }

  /** To the manager of this node, or to one of the others. */
  #connect(): Channel {
    return this.#manager === undefined ? this.#connectToOthers() : this.#options.connectToOwnManager();
  }

  /** To the only manager there is when there are no others. */
  #connectToOthers(): Channel {
    const { ownAddress, connectToOwnManager, connectTo } = this.#options;
    const own = ownAddress();
    const others = this.#managers.addresses.some((address) => address !== own);
    if (!others && this.#manager !== undefined) return connectToOwnManager();
    let address = this.#managers.next();
    if (others && address === own) address = this.#managers.next();
    if (address === undefined)
      throw new SwarmError('unavailable', 'this node knows no manager of its cluster', {
        hint: 'Leave the cluster and join it again.',
      });
    return connectTo(address);
  }
}
