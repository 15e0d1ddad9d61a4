// The agent's loggers, one per part.

import { createLogger } from '../rpc/logger.ts';

export const sessionLog = createLogger('agent.session');
export const workerLog = createLogger('agent.worker');
export const engineLog = createLogger('agent.engine');
export const secretsLog = createLogger('agent.secrets');
export const networkLog = createLogger('agent.network');
