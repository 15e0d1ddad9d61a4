// What operators say of one node: its addresses and its availability. Whether an interface is there only the daemon knows.

import { isIP } from 'node:net';
import { CLUSTER_PORT, formatHostPort, parseHostPort } from '../../core/addresses.ts';
import { messageOf } from '../../core/errors.ts';
import type { NodeSpec } from '../../core/generated/objects.ts';
import { formatGoDuration } from '../output/human.ts';
import { UsageError } from '../usage-error.ts';
import { countFlag, durationFlag, type FlagOptions, type FlagTable, valueFlag } from './flag.ts';
import { oneOf } from './units.ts';

// As long as an update may take to get on.
const DRAIN_DEADLINE_MS = 600_000;
const AVAILABILITIES = ['active', 'pause', 'drain'] as const;

export const availabilityFlag = (options: FlagOptions = {}) =>
  valueFlag('string', oneOf(...AVAILABILITIES), 'Availability of the node ("active", "pause", "drain")', {
    ...options,
    choices: AVAILABILITIES,
  });

export const drainRateFlag = countFlag('Tasks that leave a drained node at a time (0 = all)');
export const drainDeadlineFlag = durationFlag(
  'Time after which all that is left on a drained node is stopped, also before its successors run',
  { defaultText: formatGoDuration(DRAIN_DEADLINE_MS) },
);

/** How a node that begins to be drained is to be drained. */
export function drainSpec({ rate, deadlineMs }: DrainFlags): Pick<NodeSpec, 'drainRate' | 'drainDeadlineMs'> {
  return { drainRate: rate ?? 0, drainDeadlineMs: deadlineMs ?? DRAIN_DEADLINE_MS };
}

interface DrainFlags {
  readonly rate: number | undefined;
  readonly deadlineMs: number | undefined;
}

/** Of `init` and `join`. */
export const newNodeFlags = {
  'advertise-addr': valueFlag(
    'string',
    parseNodeAddress,
    'Advertised address (format: <ip|interface>[:port])',
    { defaultText: 'chosen' },
  ),
  'listen-addr': valueFlag('node-addr', parseNodeAddress, 'Listen address (format: <ip|interface>[:port])', {
    defaultText: `0.0.0.0:${CLUSTER_PORT}`,
  }),
  'data-path-addr': valueFlag(
    'string',
    parseDataPathAddress,
    'Address or interface to use for data path traffic (format: <ip|interface>)',
    { defaultText: 'the advertised address' },
  ),
  availability: availabilityFlag({ defaultText: 'active' }),
} satisfies FlagTable;

/** "IP|INTERFACE[:PORT]", as it was written. */
function parseNodeAddress(text: string): string {
  requireHostPort(
    text,
    `an IP address or an interface, with or without a port, as in 10.0.0.1:${CLUSTER_PORT}`,
  );
  return text;
}

/** "IP|INTERFACE": the port of the traffic between containers is the whole cluster's. */
function parseDataPathAddress(text: string): string {
  if (isIP(text) === 0 && !/^[^\s:/[\]]+$/.test(text))
    throw new Error('must be an IP address or an interface, without a port (that is --data-path-port)');
  return text;
}

/** "HOST[:PORT]" of a manager; the result has the port. */
export function parseManagerAddress(text: string): string {
  return formatHostPort(requireHostPort(text, `HOST:PORT of a manager, as in 10.0.0.1:${CLUSTER_PORT}`));
}

/** The same of a word that is no flag. */
export function managerAddress(text: string): string {
  try {
    return parseManagerAddress(text);
  } catch (error) {
    throw new UsageError(`HOST:PORT: ${JSON.stringify(text)} ${messageOf(error)}`);
  }
}

function requireHostPort(text: string, wanted: string) {
  try {
    if (/[\s/]/.test(text)) throw new Error('it is more than an address');
    return parseHostPort(text, '');
  } catch {
    throw new Error(`must be ${wanted}`);
  }
}
