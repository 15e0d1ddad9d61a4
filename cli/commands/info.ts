// `tsswarm info`: this node, its engine and its place in the cluster.

import { hasCode } from '../../core/errors.ts';
import { defineCommand } from '../command.ts';
import type { Connection } from '../connection.ts';
import { textFlag } from '../flags/flag.ts';
import { formatInspect } from '../format/inspect-format.ts';
import { type ClusterFacts, infoLines, infoObject } from '../inspect/info-shape.ts';

const CLUSTER_LIMIT_MS = 5_000;

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: { format: textFlag('Format output: "json" or a Go TEMPLATE', { shorthand: 'f' }) },
  async run({ flags, io, connection }) {
    const info = await (await connection.node()).info({});
    const cluster = info.state === 'active' && info.manager ? await clusterFacts(connection) : undefined;
    if (flags.format === undefined || flags.format === '') {
      await io.out(`${infoLines(info, cluster).join('\n')}\n`);
      for (const warning of info.warnings) io.err(`WARNING: ${warning}\n`);
    } else {
      const object = infoObject(info, cluster);
      await io.out(
        flags.format === 'json' ? `${JSON.stringify(object)}\n` : formatInspect([object], flags.format),
      );
    }
  },
});

async function clusterFacts(connection: Connection): Promise<ClusterFacts | undefined> {
  const limit = { timeoutMs: CLUSTER_LIMIT_MS };
  try {
    const control = await connection.control();
    const [facts, { certificate, rotation }] = await Promise.all([
      control.getCluster({}, limit),
      control.getAuthority({}, limit),
    ]);
    return { ...facts, root: certificate, isRootRotating: rotation !== undefined };
  } catch (error) {
    // The node's own facts are worth showing while its manager starts.
    if (hasCode(error, 'unavailable') || hasCode(error, 'deadline-exceeded')) return undefined;
    throw error;
  }
}
