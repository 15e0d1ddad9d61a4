// `task logs`.

import { logsCommand } from '../../logs/logs-command.ts';

export const command = logsCommand('[OPTIONS] TASK|SERVICE.SLOT', 'task');
