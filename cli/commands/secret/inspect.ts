// `secret inspect`.

import { inspectCommand } from '../../payloads/inspect.ts';

export const command = inspectCommand('secret');
