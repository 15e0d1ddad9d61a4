// `node demote`: managers become workers.

import { defineCommand } from '../../command.ts';
import { changeRoles, roleFlags } from './change-roles.ts';

export const command = defineCommand({
  usage: '[OPTIONS] NODE [NODE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: roleFlags,
  completes: 'node',
  run: (call) => changeRoles('worker', call),
});
