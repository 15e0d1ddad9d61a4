// `config create`.

import { createCommand } from '../../payloads/create.ts';

export const command = createCommand('config');
