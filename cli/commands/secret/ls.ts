// `secret ls`.

import { listCommand } from '../../payloads/list.ts';

export const command = listCommand('secret');
