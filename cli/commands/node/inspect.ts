// `node inspect`.

import type { Node } from '../../../core/generated/objects.ts';
import { defineCommand } from '../../command.ts';
import { inspectFlags } from '../../flags/common-flags.ts';
import { inspectObjects } from '../../inspect/inspect-objects.ts';
import { prettyNode, toDockerNode } from '../../inspect/node-shape.ts';
import { clusterRoots } from '../../inspect/node-trust.ts';
import { findNode } from '../../names.ts';
import { ownNodeId } from './ls.ts';

export const command = defineCommand({
  usage: '[OPTIONS] self|NODE [NODE...]',
  args: { min: 1, max: Number.POSITIVE_INFINITY },
  flags: inspectFlags,
  completes: 'node',
  async run({ flags, args, io, connection }) {
    const control = await connection.control();
    const [{ nodes }, authority] = await Promise.all([control.listNodes({}), control.getAuthority({})]);
    const roots = clusterRoots(authority);
    const selfId = args.includes('self') ? await ownNodeId(connection) : '';
    return inspectObjects<Node>({
      names: args,
      find: async (name) => findNode(nodes, name === 'self' ? selfId : name),
      toShape: (node) => toDockerNode(node, roots),
      toText: (node) => prettyNode(node, roots, io.nowMs()),
      flags,
      io,
    });
  },
});
