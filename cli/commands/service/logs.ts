// `service logs`.

import { logsCommand } from '../../logs/logs-command.ts';

export const command = logsCommand('[OPTIONS] SERVICE|TASK', 'service');
