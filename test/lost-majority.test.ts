// A leader that has lost its majority, in simulated time: who asks it is told so, soon, and is promised nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../core/assert.ts';
import { SwarmError } from '../core/errors.ts';
import { NotLeaderError } from '../manager/store/replicated-log.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { entryOf, HostWorld } from './sim/host-world.ts';

setLogLevel('silent');

// Two election timeouts of a second, on a clock that may be a twentieth slow, and a tick.
const BOUND_MS = 2_250;
const MINE = 4_000_000;

interface Call {
  readonly what: string;
  readonly askedMs: number;
  answeredMs: number | undefined;
  error: unknown;
}

/** Asks, and notes when and how it was answered. */
function ask(world: HostWorld, what: string, answer: Promise<unknown>): Call {
  const call: Call = { what, askedMs: world.time.nowMs, answeredMs: undefined, error: undefined };
  const note = (error?: unknown) => {
    call.answeredMs = world.time.nowMs;
    call.error = error;
  };
  answer.then(() => note(), note);
  return call;
}

for (const seed of [1, 2, 3, 4, 5])
  test(`callers of a leader without a majority get an error in time, and nothing is acknowledged (seed ${seed})`, async () => {
    const world = new HostWorld(seed, { size: 3, isCalm: true });
    world.begin();
    await world.advance(5_000);
    const old = defined(world.leader, 'nobody leads');
    const host = defined(old.host, 'it runs');
    const calls: Call[] = [];
    const askAll = (when: string) => {
      calls.push(ask(world, `write ${when}`, host.propose(entryOf(0, MINE + calls.length))));
      calls.push(ask(world, `read ${when}`, host.readBarrier()));
    };

    world.isolate(old);
    for (let round = 0; round < 30; round++) {
      askAll(`${round * 100} ms after the cut`);
      await world.advance(100);
    }
    await world.advance(BOUND_MS);

    for (const { what, askedMs, answeredMs, error } of calls) {
      assert.ok(error instanceof SwarmError && error.code === 'unavailable', `${what}: ${error}`);
      const tookMs = defined(answeredMs, what) - askedMs;
      assert.ok(tookMs <= BOUND_MS, `${what}: after ${tookMs} ms`);
    }
    // Who asks when it is clear is told at once, and what is missing.
    const last = defined(calls.at(-2), 'a write').error;
    assert.ok(last instanceof NotLeaderError);
    assert.match(last.hint ?? '', /2 of 3 managers are needed, 1 are reached; not 10\.0\.0\.\d/);
    const inTheLog = defined(calls[0], 'a write').error as SwarmError;
    assert.match(inTheLog.message, /may have been stored/);
    assert.match(inTheLog.hint ?? '', /Look at the object/);

    // The others go on, and the old leader has what they have.
    assert.notEqual(world.leader, old);
    world.mend();
    await world.advance(3_000);
    const committed = world.machines.map(({ host: each }) => defined(each, 'it runs').status.committedIndex);
    assert.ok(Math.max(...committed) - Math.min(...committed) < 100, `${committed}`);
    for (const { registers } of world.machines) assert.ok(registers.highest < MINE);
  });
