// `node update`: availability and labels.

import { invalidField } from '../../../core/errors.ts';
import { defineCommand } from '../../command.ts';
import { listFlag, unsupportedFlags, valueFlag, valuesFlag } from '../../flags/flag.ts';
import { oneOf } from '../../flags/units.ts';
import { parseLabel } from '../../flags/words.ts';
import { findNode } from '../../names.ts';
import { ownNodeId } from './ls.ts';

const AVAILABILITIES = ['active', 'pause', 'drain'] as const;

export const command = defineCommand({
  usage: '[OPTIONS] NODE',
  args: { min: 1, max: 1 },
  flags: {
    availability: valueFlag(
      'string',
      oneOf(...AVAILABILITIES),
      'Availability of the node ("active", "pause", "drain")',
      {
        choices: AVAILABILITIES,
      },
    ),
    'label-add': valuesFlag('list', parseLabel, 'Add or update a node label (key=value)'),
    'label-rm': listFlag('Remove a node label if exists'),
    ...unsupportedFlags(['role']),
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
      spec: { ...node.spec, labels, availability: flags.availability ?? node.spec.availability },
    });
    await io.out(`${name}\n`);
  },
});
