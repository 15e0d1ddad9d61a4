// A program in a container's network namespace that asks for a name over and over. It answers calls.

import { Resolver } from 'node:dns/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { answerCalls } from './answer-calls.ts';

const PERIOD_MS = 1;
const resolver = new Resolver();
resolver.setServers(['127.0.0.11']);

interface Wanted {
  readonly name: string;
  readonly count: number;
}

/** The Unix time in milliseconds of the first answer with so many addresses. */
async function untilCount({ name, count }: Wanted): Promise<number> {
  while ((await resolver.resolve4(name)).length !== count) await delay(PERIOD_MS);
  return Date.now();
}

await answerCalls({ untilCount });
