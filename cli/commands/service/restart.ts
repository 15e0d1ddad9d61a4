// `service restart SERVICE…`: every task is replaced, in the way of the service's updates.

import { changeCommand } from './change-services.ts';

export const command = changeCommand((spec) => ({
  ...spec,
  stopped: false,
  task: { ...spec.task, forceUpdate: spec.task.forceUpdate + 1 },
}));
