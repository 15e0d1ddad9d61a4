// What operators say of a whole cluster: the flags of `init`, `cluster update` and `ca`, and what they mean. Adding a flag:
// here, in one of the tables and in `clusterChanges`.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { defaultClusterSpec } from '../../core/defaults.ts';
import { invalidField, messageOf } from '../../core/errors.ts';
import { type ExternalCaFlag, parseExternalCa } from '../../core/external-ca.ts';
import type { ClusterSpec, ExternalCa } from '../../core/generated/objects.ts';
import { formatGoDuration } from '../output/human.ts';
import {
  countFlag,
  durationFlag,
  type FlagOptions,
  type FlagTable,
  type FlagValues,
  integerFlag,
  switchFlag,
  valuesFlag,
} from './flag.ts';

/** Keeps a default for help only where leaving the flag out means the default: on init. */
type Initial = (value: string) => FlagOptions;

const certificateFlags = (initial: Initial) => ({
  'cert-expiry': durationFlag(
    'Validity period for node certificates',
    initial(formatGoDuration(defaultClusterSpec.certificateLifeMs)),
  ),
  'external-ca': valuesFlag(
    'external-ca',
    parseExternalCa,
    'Specifications of certificate signing endpoints (protocol=cfssl,url=URL[,cacert=FILE])',
  ),
});

const specFlags = (initial: Initial) => ({
  ...certificateFlags(initial),
  'task-history-limit': integerFlag(
    'Task history retention limit, at least 2 of each slot; negative keeps all',
    initial(String(defaultClusterSpec.taskHistoryLimit)),
  ),
  'service-history-limit': countFlag(
    'Number of specs kept of each service, the current one included (0 = the default)',
    initial(String(defaultClusterSpec.specHistoryLimit)),
  ),
  'dispatcher-heartbeat': durationFlag(
    'Dispatcher heartbeat period',
    initial(formatGoDuration(defaultClusterSpec.heartbeatPeriodMs)),
  ),
  'node-suspect-after': durationFlag(
    'Give a node no new tasks when it is not heard of for this long (0 = two heartbeat periods)',
    initial('two heartbeat periods'),
  ),
  'orphan-after': durationFlag(
    'Give up tasks, and free their addresses, when their node is down for this long (0 = the default)',
    initial(formatGoDuration(defaultClusterSpec.orphanAfterMs)),
  ),
  'reschedule-max': countFlag(
    'Percentage of nodes, at least one, whose tasks are replaced in a minute because they are down (0 = the default)',
    initial(String(defaultClusterSpec.rescheduleMaxPercent)),
  ),
  'max-snapshots': countFlag(
    'Number of additional Raft snapshots to retain',
    initial(String(defaultClusterSpec.maxSnapshots)),
  ),
  'snapshot-interval': countFlag(
    'Number of log entries between Raft snapshots',
    initial(String(defaultClusterSpec.snapshotInterval)),
  ),
  autolock: switchFlag('Managers need an unlock key after a restart'),
});

const none: Initial = () => ({});

export const initClusterFlags = specFlags((defaultText) => ({ defaultText })) satisfies FlagTable;
export const updateClusterFlags = {
  ...specFlags(none),
  'dead-manager-after': durationFlag('Remove managers that are out of reach for this long (0 = never)'),
  'departed-node-after': durationFlag('Remove workers that are down for this long (0 = never)'),
  'accept-expired': durationFlag(
    'For this long let nodes renew certificates that have expired (0 = no more)',
  ),
} satisfies FlagTable;
export const authorityClusterFlags = certificateFlags(none) satisfies FlagTable;

export interface ClusterFlagContext {
  readonly workdir: string;
  readonly nowMs: number;
}

/** The fields that were said, and nothing else. Reads the files that flags name; throws `invalid-argument` about them. */
export function clusterChanges(
  flags: Partial<FlagValues<typeof updateClusterFlags>>,
  { workdir, nowMs }: ClusterFlagContext,
): Partial<ClusterSpec> {
  const externalCas = (flags['external-ca'] ?? []).map((flag) => readExternalCa(flag, workdir));
  const acceptExpiredMs = flags['accept-expired'];
  const said: { readonly [K in keyof ClusterSpec]?: ClusterSpec[K] | undefined } = {
    taskHistoryLimit: flags['task-history-limit'],
    specHistoryLimit: flags['service-history-limit'],
    heartbeatPeriodMs: flags['dispatcher-heartbeat'],
    nodeSuspectAfterMs: flags['node-suspect-after'],
    orphanAfterMs: flags['orphan-after'],
    rescheduleMaxPercent: flags['reschedule-max'],
    snapshotInterval: flags['snapshot-interval'],
    maxSnapshots: flags['max-snapshots'],
    certificateLifeMs: flags['cert-expiry'],
    externalCas: externalCas.length > 0 ? externalCas : undefined,
    autolock: flags.autolock,
    deadManagerAfterMs: flags['dead-manager-after'],
    departedNodeAfterMs: flags['departed-node-after'],
    acceptExpiredUntilMs: acceptExpiredMs && nowMs + acceptExpiredMs,
  };
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined));
}

/** A file that a flag names, as text. Throws `invalid-argument` that names the flag. */
export function readFlagFile(field: string, file: string, workdir: string): string {
  try {
    return readFileSync(path.resolve(workdir, file), 'utf8');
  } catch (error) {
    throw invalidField(field, messageOf(error));
  }
}

function readExternalCa({ protocol, url, caCertFile, options }: ExternalCaFlag, workdir: string): ExternalCa {
  const field = 'external-ca cacert';
  const caCertificate = caCertFile === undefined ? '' : readFlagFile(field, caCertFile, workdir);
  if (caCertFile !== undefined && !caCertificate.includes('-----BEGIN CERTIFICATE-----'))
    throw invalidField(field, `${caCertFile} has no certificate in PEM`);
  return { protocol, url, caCertificate, options };
}
