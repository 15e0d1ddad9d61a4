// The node's loggers.

import { createLogger } from '../rpc/logger.ts';

export const nodeLog = createLogger('node');
