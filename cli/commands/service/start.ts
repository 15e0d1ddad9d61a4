// `service start SERVICE…`: the tasks that its spec says, after `service stop`.

import { changeCommand } from './change-services.ts';

export const command = changeCommand((spec) => ({ ...spec, stopped: false }));
