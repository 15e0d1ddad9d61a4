// A node that answers the command line what a test wants, over real sockets: its daemon, and, when there are answers for
// it, a manager. What was asked is kept.

import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Io } from '../../cli/io.ts';
import { runCli } from '../../cli/main.ts';
import { SwarmError } from '../../core/errors.ts';
import { ControlService } from '../../proto/generated/control.ts';
import { emptyInfoResponse, NodeControlService } from '../../proto/generated/node.ts';
import type { Service } from '../../proto/wire.ts';
import { type Handlers, RpcServer } from '../../rpc/server.ts';
import { type CliOptions, type CliResult, runProgram } from './cli-cluster.ts';

export interface Answers {
  readonly node?: Partial<Handlers<typeof NodeControlService>>;
  /** Absent: this node has no manager. */
  readonly control?: Partial<Handlers<typeof ControlService>>;
}

export interface AskedCall {
  readonly method: string;
  readonly request: unknown;
}

export class CliNode {
  readonly directory: string;
  /** All calls but those that only look. */
  readonly asked: AskedCall[] = [];
  readonly #node = new RpcServer();
  #control = new RpcServer();

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async start({ node = {}, control }: Answers): Promise<CliNode> {
    const cli = new CliNode(await mkdtemp(path.join(os.tmpdir(), 'tsw-cli-')));
    const isManager = control !== undefined;
    const info = () => ({
      ...emptyInfoResponse,
      state: 'active' as const,
      nodeId: 'self',
      manager: isManager,
    });
    cli.#node.add(NodeControlService, cli.#complete(NodeControlService, { info, ...node }));
    await cli.#node.listen(path.join(cli.directory, 'node.sock'), 0o600);
    if (isManager) await cli.startManager(control);
    return cli;
  }

  async startManager(control: NonNullable<Answers['control']>): Promise<void> {
    this.#control = new RpcServer();
    this.#control.add(ControlService, this.#complete(ControlService, control));
    await this.#control.listen(this.#controlSocket, 0o600);
  }

  async stopManager(): Promise<void> {
    this.#control.stop();
    await rm(this.#controlSocket, { force: true });
  }

  get #controlSocket(): string {
    return path.join(this.directory, 'control.sock');
  }

  run(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    return runProgram(args, {
      ...options,
      environment: { TSSWARM_HOST: `unix://${this.#controlSocket}`, ...options.environment },
    });
  }

  /** In this process: with another clock, or an interrupt. */
  async runHere(args: readonly string[], world: Partial<Io> = {}): Promise<CliResult> {
    const out: string[] = [];
    const err: string[] = [];
    const io: Io = {
      environment: { TSSWARM_HOST: `unix://${this.#controlSocket}` },
      workdir: this.directory,
      stdin: (async function* () {})(),
      readSecret: async () => undefined,
      keyboard: undefined,
      isTerminal: false,
      columns: 80,
      rows: 24,
      isUtf8: true,
      out: async (data) => void out.push(String(data)),
      err: (data) => void err.push(String(data)),
      errOut: async (data) => void err.push(String(data)),
      nowMs: Date.now,
      catchInterrupt: () => new AbortController().signal,
      onSignal: () => () => {},
      onResize: () => () => {},
      ...world,
    };
    const code = await runCli(args, io);
    return { code, stdout: out.join(''), stderr: err.join('') };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#node.stop();
    this.#control.stop();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Refuses what the test has no answer for, and notes what would change something. */
  #complete<S extends Service>(service: S, given: Partial<Handlers<S>>): Handlers<S> {
    const handlers = Object.keys(service).map((method) => {
      const answer = given[method as keyof S] as
        | ((request: unknown, context: unknown) => unknown)
        | undefined;
      return [
        method,
        (request: unknown, context: unknown) => {
          if (!/^(info|get|list)/.test(method)) this.asked.push({ method, request });
          if (answer === undefined) throw new SwarmError('unimplemented', `no answer for ${method}`);
          return answer(request, context);
        },
      ];
    });
    return Object.fromEntries(handlers) as Handlers<S>;
  }
}
