// `config update`.

import { updateCommand } from '../../payloads/update.ts';

export const command = updateCommand('config');
