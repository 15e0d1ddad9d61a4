// The control service on a store in memory, for the real command line in processes of its own: no loops, no agent; the
// allocator's part is played.

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { x509Tool } from '../../manager/ca/x509.ts';
import { controlHandlers } from '../../manager/control/control-api.ts';
import { LogBroker } from '../../manager/log-broker.ts';
import { NodeQuestions } from '../../manager/node-questions.ts';
import { ReachBroker } from '../../manager/reach-broker.ts';
import { Store } from '../../manager/store/store.ts';
import { systemClock } from '../../node/system-clock.ts';
import { ControlService } from '../../proto/generated/control.ts';
import { setLogLevel } from '../../rpc/logger.ts';
import { RpcServer } from '../../rpc/server.ts';
import { type CliOptions, type CliResult, runProgram } from './cli-cluster.ts';
import { MemoryLog } from './memory-log.ts';
import { type PlayedAllocator, playAllocator } from './play-allocator.ts';

setLogLevel('silent');

export class ControlCli {
  readonly store = new Store(new MemoryLog(), systemClock);
  readonly allocator: PlayedAllocator = playAllocator(this.store);
  readonly #directory: string;
  readonly #server = new RpcServer();

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async start(): Promise<ControlCli> {
    const cli = new ControlCli(await mkdtemp(path.join(os.tmpdir(), 'tsw-control-')));
    await cli.store.open();
    const handlers = controlHandlers({
      store: cli.store,
      clock: systemClock,
      randomBytes,
      logBroker: new LogBroker(systemClock, randomBytes),
      questions: new NodeQuestions(systemClock, randomBytes),
      reach: new ReachBroker(systemClock, randomBytes),
      tool: x509Tool,
      consensus: undefined,
      leaderAddress: () => undefined,
      backup: async function* () {},
    });
    cli.#server.add(ControlService, handlers);
    await cli.#server.listen(cli.#socket, 0o600);
    return cli;
  }

  run(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    const environment = { TSSWARM_HOST: `unix://${this.#socket}`, ...options.environment };
    return runProgram(args, { ...options, environment });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.stop();
    await this.allocator.stop();
    await rm(this.#directory, { recursive: true });
  }

  get #socket(): string {
    return path.join(this.#directory, 'control.sock');
  }
}
