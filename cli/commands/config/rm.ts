// `config rm`.

import { removeCommand } from '../../payloads/remove.ts';

export const command = removeCommand('config');
