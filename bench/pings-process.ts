// Asks a manager by its socket again and again, and beside it a process that does no more than answer, and notes how long
// each took. A process of its own: whoever counts or lists things meanwhile would wait for its own event loop too.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { ManagerHealthService } from '../proto/generated/control.ts';
import { createClient, openChannel } from '../rpc/client.ts';
import type { PingTimes } from './pings.ts';

const PAUSE_MS = 25;
const ECHO = "process.on('message', (message) => process.send(message))";

const [socket = ''] = process.argv.slice(2);
const manager = createClient(ManagerHealthService, openChannel(`unix://${socket}`));
const child = spawn(process.execPath, ['-e', ECHO], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
let times: PingTimes = { managerMs: [], idleMs: [] };

async function pingAll(what: keyof PingTimes, call: () => Promise<unknown>): Promise<never> {
  for (;;) {
    const startedMs = performance.now();
    await call();
    times[what].push(performance.now() - startedMs);
    await delay(PAUSE_MS);
  }
}

async function echo(process: ChildProcess): Promise<void> {
  process.send('ping');
  await once(process, 'message');
}

process.on('message', () => {
  process.send?.(times);
  times = { managerMs: [], idleMs: [] };
});
process.once('disconnect', () => process.exit());
// Until it answers at all: a program takes a while to start.
await echo(child);
await Promise.all([pingAll('managerMs', () => manager.check({})), pingAll('idleMs', () => echo(child))]);
