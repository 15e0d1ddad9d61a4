// `service start SERVICE…`: the tasks that its spec says, after `service stop`.

import { changeRunning } from './change-running.ts';

export const command = changeRunning((spec) => ({ ...spec, stopped: false }));
