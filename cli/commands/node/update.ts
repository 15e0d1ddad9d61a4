// `node update`: availability, labels, role, and the address of a manager that has moved.

import { invalidField } from '../../../core/errors.ts';
import type { NodeSpec } from '../../../core/generated/objects.ts';
import { defineCommand } from '../../command.ts';
import { listFlag, switchFlag, valueFlag, valuesFlag } from '../../flags/flag.ts';
import {
  availabilityFlag,
  drainDeadlineFlag,
  drainRateFlag,
  drainSpec,
  parseManagerAddress,
} from '../../flags/node-flags.ts';
import { oneOf } from '../../flags/units.ts';
import { parseLabel } from '../../flags/words.ts';
import { findNode } from '../../names.ts';
import { UsageError } from '../../usage-error.ts';
import { ownNodeId } from './ls.ts';

const ROLES = ['worker', 'manager'] as const;

export const command = defineCommand({
  usage: '[OPTIONS] NODE',
  args: { min: 1, max: 1 },
  flags: {
    availability: availabilityFlag(),
    'advertise-addr': valueFlag(
      'string',
      parseManagerAddress,
      'Address by which the others reach this manager from now on (format: HOST:PORT)',
    ),
    'drain-deadline': drainDeadlineFlag,
    'drain-rate': drainRateFlag,
    force: switchFlag('Drain it also when its tasks fit nowhere else'),
    'label-add': valuesFlag('list', parseLabel, 'Add or update a node label (key=value)'),
    'label-rm': listFlag('Remove a node label if exists'),
    role: valueFlag('string', oneOf(...ROLES), 'Role of the node ("worker", "manager")', { choices: ROLES }),
  },
  completes: 'node',
  async run({ flags, args: [name = ''], io, connection }) {
    const control = await connection.control();
    const { nodes } = await control.listNodes({});
    const node = findNode(nodes, name === 'self' ? await ownNodeId(connection) : name);
    const labels = { ...node.spec.labels };
    for (const key of flags['label-rm']) {
      if (!Object.hasOwn(labels, key))
        throw invalidField('label-rm', `key ${key} doesn't exist in node's labels`);
      delete labels[key];
    }
    for (const [key, value] of flags['label-add']) labels[key] = value;
    await control.updateNode({
      nodeId: node.id,
      version: node.meta.version,
      spec: {
        ...node.spec,
        labels,
        availability: flags.availability ?? node.spec.availability,
        desiredRole: flags.role ?? node.spec.desiredRole,
        ...drainChanges(node.spec, flags),
      },
      address: flags['advertise-addr'] ?? '',
      force: flags.force ?? false,
    });
    await io.out(`${name}\n`);
  },
});

interface DrainOptions {
  readonly availability: NodeSpec['availability'] | undefined;
  readonly 'drain-rate': number | undefined;
  readonly 'drain-deadline': number | undefined;
}

/** A node that is drained already may be told to go on otherwise. */
function drainChanges(before: NodeSpec, flags: DrainOptions): Partial<NodeSpec> {
  const { availability, 'drain-rate': rate, 'drain-deadline': deadlineMs } = flags;
  const isSaid = rate !== undefined || deadlineMs !== undefined;
  const isDrained = (availability ?? before.availability) === 'drain';
  if (!isDrained && isSaid)
    throw new UsageError(
      '--drain-rate and --drain-deadline are for nodes that are drained: --availability drain',
    );
  if (!isDrained) return {};
  if (before.availability !== 'drain') return drainSpec({ rate, deadlineMs });
  return {
    ...(rate !== undefined && { drainRate: rate }),
    ...(deadlineMs !== undefined && { drainDeadlineMs: deadlineMs }),
  };
}
