// The root of all loggers: JSON lines on stderr. Every top folder has a `log.ts` that names its children.

import pino from 'pino';

export type Logger = pino.Logger;

const root = pino(
  { base: null, timestamp: pino.stdTimeFunctions.isoTime },
  pino.destination({ fd: 2, sync: true }),
);

/** The logger of one part of the program; `module` is a dotted name such as "agent.engine". */
export function createLogger(module: string): Logger {
  return root.child({ module });
}

/** Called once by `bin/`, before anything logs; children made earlier keep their level. */
export function setLogLevel(level: pino.LevelWithSilent): void {
  root.level = level;
}
