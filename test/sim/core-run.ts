// One run of a seed, and what became of it. A failing seed is made short: the least number of random actions after
// which it still fails, for runs of one seed begin alike whatever their length.

import { Violation } from './core-checks.ts';
import { CoreWorld } from './core-world.ts';

export interface Failure {
  readonly seed: number;
  readonly steps: number;
  /** Number of the rule in manager/raft/SPEC.md, or the name of the error. */
  readonly rule: string;
  readonly message: string;
}

/** Actions that a search for the shortest failure may take in all. */
const SEARCH_STEPS_MAX = 20_000_000;

export function runSeed(seed: number, steps: number, trace?: (line: string) => void): Failure | undefined {
  const world = new CoreWorld(seed, trace);
  try {
    world.run(steps);
    return undefined;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { seed, steps: world.steps, rule: ruleOf(error), message: error.message };
  }
}

export function shortest(failure: Failure): Failure {
  let spent = 0;
  for (let steps = 1; steps < failure.steps && spent < SEARCH_STEPS_MAX; steps++) {
    const shorter = runSeed(failure.seed, steps);
    if (shorter?.rule === failure.rule) return shorter;
    spent += steps;
  }
  return failure;
}

function ruleOf(error: Error): string {
  return error instanceof Violation ? error.rule : error.name;
}
