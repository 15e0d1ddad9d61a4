// The root of all loggers: JSON lines on stderr. Every top folder has a `log.ts` that names its children.

import pino from 'pino';

export type Logger = pino.Logger;

const root = pino(
  { base: null, timestamp: pino.stdTimeFunctions.isoTime },
  pino.destination({ fd: 2, sync: true }),
);

// A child keeps the level it was made with, so a change of level has to reach each.
const children: Logger[] = [];

/** The logger of one part of the program; `module` is a dotted name such as "agent.engine". */
export function createLogger(module: string): Logger {
  const child = root.child({ module });
  children.push(child);
  return child;
}

/** The least important level that is written, of all loggers. */
export function setLogLevel(level: pino.LevelWithSilent): void {
  for (const logger of [root, ...children]) logger.level = level;
}
