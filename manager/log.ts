// The manager's loggers, one per part.

import { createLogger } from '../rpc/logger.ts';

export const managerLog = createLogger('manager');
export const storeLog = createLogger('manager.store');
export const logLog = createLogger('manager.log');
export const loopLog = createLogger('manager.loop');
export const dispatcherLog = createLogger('manager.dispatcher');
/** Who did what inside tasks. */
export const auditLog = createLogger('manager.audit');
export const caLog = createLogger('manager.ca');
