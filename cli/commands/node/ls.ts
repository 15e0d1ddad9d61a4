// `node ls`.

import type { Node } from '../../../core/generated/objects.ts';
import { defineCommand } from '../../command.ts';
import type { Connection, Control } from '../../connection.ts';
import { filterFlag, formatFlag, quietFlag } from '../../flags/common-flags.ts';
import { formatList, type Row } from '../../format/list-format.ts';
import { compareNames } from '../../names.ts';
import { type Filters, matchesFilter, matchesLabels, parseFilters } from '../../output/filter.ts';
import { capitalize } from '../../output/human.ts';

const FILTERS = ['id', 'name', 'role', 'membership', 'label', 'node.label'];
const TITLES = {
  ID: 'ID',
  Self: '',
  Hostname: 'HOSTNAME',
  Status: 'STATUS',
  Availability: 'AVAILABILITY',
  ManagerStatus: 'MANAGER STATUS',
  TLSStatus: 'TLS STATUS',
  EngineVersion: 'ENGINE VERSION',
};
const LAYOUT =
  '{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: { filter: filterFlag, format: formatFlag, quiet: quietFlag },
  async run({ flags, io, connection }) {
    const filters = parseFilters(flags.filter, FILTERS);
    const control = await connection.control();
    // The default table has no place for it.
    const readStatus =
      flags.format === undefined ? async () => () => '' : () => tlsStatuses(control, io.nowMs());
    const [{ nodes }, selfId, tlsStatusOf] = await Promise.all([
      control.listNodes({}),
      ownNodeId(connection),
      readStatus(),
    ]);
    const rows = nodes
      .filter((node) => matchesNode(filters, node))
      .sort((a, b) => compareNames(a.description.hostname, b.description.hostname))
      .map((node) => ({ ...nodeRow(node, selfId), TLSStatus: tlsStatusOf(node) }));
    await io.out(
      formatList(rows, { titles: TITLES, layout: LAYOUT, format: flags.format, isQuiet: flags.quiet }),
    );
  },
});

async function tlsStatuses(control: Control, nowMs: number): Promise<(node: Node) => string> {
  const { clusterRoots, tlsStatus } = await import('../../inspect/node-trust.ts');
  const roots = clusterRoots(await control.getAuthority({}));
  return (node) => tlsStatus(node, roots, nowMs);
}

/** Empty when the daemon of this machine does not answer: the list is worth showing without the star. */
export async function ownNodeId(connection: Connection): Promise<string> {
  try {
    return (await (await connection.node()).info({}, { timeoutMs: 2_000 })).nodeId;
  } catch {
    return '';
  }
}

function matchesNode(filters: Filters, node: Node): boolean {
  return (
    matchesFilter(filters, 'id', (value) => node.id.startsWith(value)) &&
    matchesFilter(filters, 'name', (value) => node.description.hostname.startsWith(value)) &&
    matchesFilter(filters, 'role', (value) => node.role === value) &&
    matchesFilter(filters, 'membership', (value) => value === 'accepted') &&
    matchesLabels(filters, 'label', node.description.engineLabels) &&
    matchesLabels(filters, 'node.label', node.spec.labels)
  );
}

function nodeRow(node: Node, selfId: string): Row {
  const manager = node.managerStatus;
  return {
    ID: node.id,
    Self: node.id === selfId,
    Hostname: node.description.hostname,
    // Its tasks are not replaced, which nobody expects of a node that is down.
    Status: node.status.held ? 'Down (held)' : capitalize(node.status.state),
    Availability: capitalize(node.spec.availability),
    ManagerStatus:
      manager === undefined
        ? ''
        : manager.leader
          ? 'Leader'
          : manager.reachable
            ? 'Reachable'
            : 'Unreachable',
    EngineVersion: node.description.engineVersion,
  };
}
