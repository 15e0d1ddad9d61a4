// The two sockets of the machine at hand, opened when first asked for: control (the manager) and node (the daemon).

import { connect } from 'node:net';
import path from 'node:path';
import { SwarmError } from '../core/errors.ts';
import type { ControlService } from '../proto/generated/control.ts';
import type { InfoResponse, NodeControlService } from '../proto/generated/node.ts';
import type { Client } from '../rpc/client.ts';
import type { LightChannel } from '../rpc/light-client.ts';
import { badFlag } from './usage-error.ts';

export const DEFAULT_HOST = 'unix:///run/tsswarm/control.sock';

export type Control = Client<typeof ControlService>;
export type NodeControl = Client<typeof NodeControlService>;

// Docker's words: scripts look for them.
const NO_MANAGER =
  "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
const INFO_LIMIT_MS = 5_000;

export class Connection {
  readonly controlSocket: string;
  readonly nodeSocket: string;
  readonly #channels: LightChannel[] = [];
  #control: Promise<Control> | undefined;
  #node: Promise<NodeControl> | undefined;
  #needsManager = false;

  constructor(host: string) {
    this.controlSocket = socketPath(host);
    this.nodeSocket = path.join(path.dirname(this.controlSocket), 'node.sock');
  }

  control(): Promise<Control> {
    this.#needsManager = true;
    this.#control ??= (async () => {
      const [{ ControlService }, rpc] = await Promise.all([
        import('../proto/generated/control.ts'),
        import('../rpc/light-client.ts'),
      ]);
      return rpc.createLightClient(ControlService, this.#open(rpc, this.controlSocket));
    })();
    return this.#control;
  }

  node(): Promise<NodeControl> {
    this.#node ??= (async () => {
      const [{ NodeControlService }, rpc] = await Promise.all([
        import('../proto/generated/node.ts'),
        import('../rpc/light-client.ts'),
      ]);
      return rpc.createLightClient(NodeControlService, this.#open(rpc, this.nodeSocket));
    })();
    return this.#node;
  }

  close(): void {
    for (const channel of this.#channels.splice(0)) channel.close();
  }

  /** What is asked for next goes over new connections: those that there are have failed. */
  reopen(): void {
    this.close();
    this.#control = undefined;
    this.#node = undefined;
  }

  /** Why a call came back as unavailable: what a person can do about it, or the error itself. */
  async diagnose(error: SwarmError): Promise<SwarmError> {
    const [control, node] = await Promise.all([probe(this.controlSocket), probe(this.nodeSocket)]);
    if (control === 'EACCES' || node === 'EACCES')
      return new SwarmError(
        'permission-denied',
        `permission denied on the sockets in ${path.dirname(this.controlSocket)}`,
        {
          hint: 'Run it as root, or as a member of the group tsswarm.',
          cause: error,
        },
      );
    if (node !== 'open' && control !== 'open')
      return new SwarmError('unavailable', `cannot connect to the daemon at unix://${this.nodeSocket}`, {
        hint: 'Is tsswarmd running? (systemctl status tsswarmd; --host or TSSWARM_HOST name another socket)',
        cause: error,
      });
    // What only the daemon was asked for, it has answered itself.
    if (control !== 'open' && this.#needsManager) return this.#withoutManager(error);
    return error;
  }

  /** Why this machine has no manager that answers: its daemon knows. */
  async #withoutManager(error: SwarmError): Promise<SwarmError> {
    const about = (message: string, hint?: string) =>
      new SwarmError('unavailable', message, { cause: error, ...(hint && { hint }) });
    const info = await this.#ownInfo();
    if (info === undefined) return error;
    if (info.state === 'inactive')
      return about(
        'this node is not part of a cluster',
        'Use "tsswarm init" to make it the first node of one, or "tsswarm join" to make it a node of one that there is.',
      );
    if (info.state === 'locked')
      return about(
        'Swarm is encrypted and needs to be unlocked before it can be used. Please use "tsswarm unlock" to unlock it.',
      );
    if (info.state === 'pending')
      return about('this node is just becoming a member, or ceasing to be one', 'Try again in a moment.');
    if (!info.manager) return about(NO_MANAGER);
    return about(
      `the manager of this node does not answer${info.error === '' ? '' : `: ${info.error}`}`,
      'It is started again by itself; "tsswarm info" shows its state.',
    );
  }

  async #ownInfo(): Promise<InfoResponse | undefined> {
    this.reopen();
    try {
      return await (await this.node()).info({}, { timeoutMs: INFO_LIMIT_MS });
    } catch (error) {
      // It was asked only to say more about another error.
      if (error instanceof SwarmError) return undefined;
      throw error;
    }
  }

  #open(rpc: typeof import('../rpc/light-client.ts'), socket: string): LightChannel {
    const channel = rpc.openLightChannel(socket);
    this.#channels.push(channel);
    return channel;
  }
}

function socketPath(host: string): string {
  const file = host.startsWith('unix://') ? host.slice('unix://'.length) : host;
  if (!file.startsWith('/'))
    throw badFlag(
      `invalid argument ${JSON.stringify(host)} for "-H, --host" flag: must be unix:///path/to/control.sock`,
    );
  return file;
}

/** "open", or the code of the error that connecting gives. */
function probe(socketFile: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(socketFile);
    socket.once('connect', () => {
      socket.destroy();
      resolve('open');
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'unknown'));
  });
}
