// `service stop SERVICE…`: no tasks, and everything else as it was.

import { changeRunning } from './change-running.ts';

export const command = changeRunning((spec) => ({ ...spec, stopped: true }));
