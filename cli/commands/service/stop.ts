// `service stop SERVICE…`: no tasks, and everything else as it was.

import { changeCommand } from './change-services.ts';

export const command = changeCommand((spec) => ({ ...spec, stopped: true }));
