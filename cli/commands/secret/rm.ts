// `secret rm`.

import { removeCommand } from '../../payloads/remove.ts';

export const command = removeCommand('secret');
