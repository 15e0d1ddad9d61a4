// `secret create`.

import { createCommand } from '../../payloads/create.ts';

export const command = createCommand('secret');
