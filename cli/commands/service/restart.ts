// `service restart SERVICE…`: every task is replaced, in the way of the service's updates.

import { changeRunning } from './change-running.ts';

export const command = changeRunning((spec) => ({
  ...spec,
  stopped: false,
  task: { ...spec.task, forceUpdate: spec.task.forceUpdate + 1 },
}));
