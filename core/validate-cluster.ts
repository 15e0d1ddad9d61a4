// What makes a cluster's settings acceptable. Every refusal names the flag and says what would be right.

import { invalidField } from './errors.ts';
import type { ClusterNetwork, ClusterSpec, ExternalCa } from './generated/objects.ts';
import { DOWN_PERIODS } from './node-silence.ts';

/** Swarm's floor: below it nodes would do little else than renew. */
const CERTIFICATE_LIFE_MIN_MS = 3_600_000;
const HEARTBEAT_MIN_MS = 100;
// A node that is rebooted is to find its tasks' addresses as they were.
const ORPHAN_AFTER_MIN_MS = 10_000;
// A spec may take half a megabyte of every manager's memory.
const SPEC_HISTORY_MAX = 100;
// Swarm's range: below are ports of the system, above those that Linux gives out by itself.
const DATA_PATH_PORT_MIN = 1024;
const DATA_PATH_PORT_MAX = 49_151;
const MASK_MIN = 8;
const MASK_MAX = 29;
const POOL = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/;

/** Throws `invalid-argument` on the first field that is wrong. */
export function validateClusterSpec(spec: ClusterSpec): void {
  if (spec.certificateLifeMs < CERTIFICATE_LIFE_MIN_MS)
    throw invalidField('cert-expiry', `must be an hour or more, it is ${spec.certificateLifeMs} ms`);
  if (spec.heartbeatPeriodMs < HEARTBEAT_MIN_MS)
    throw invalidField('dispatcher-heartbeat', `must be ${HEARTBEAT_MIN_MS} ms or more`);
  if (spec.snapshotInterval < 1) throw invalidField('snapshot-interval', 'must be 1 or more');
  if (spec.specHistoryLimit < 0 || spec.specHistoryLimit > SPEC_HISTORY_MAX)
    throw invalidField('service-history-limit', `must be 0 to ${SPEC_HISTORY_MAX}`);
  if (spec.maxSnapshots < 0) throw invalidField('max-snapshots', 'must be 0 or more');
  if (spec.deadManagerAfterMs < 0) throw invalidField('dead-manager-after', 'must be 0 or more');
  if (spec.departedNodeAfterMs < 0) throw invalidField('departed-node-after', 'must be 0 or more');
  validateSilence(spec);
  for (const externalCa of spec.externalCas) validateExternalCa(externalCa);
}

function validateSilence(spec: ClusterSpec): void {
  const { nodeSuspectAfterMs, heartbeatPeriodMs, orphanAfterMs, rescheduleMaxPercent } = spec;
  const downAfterMs = DOWN_PERIODS * heartbeatPeriodMs;
  if (
    nodeSuspectAfterMs !== 0 &&
    (nodeSuspectAfterMs <= heartbeatPeriodMs || nodeSuspectAfterMs > downAfterMs)
  )
    throw invalidField(
      'node-suspect-after',
      `must be more than one heartbeat period (${heartbeatPeriodMs} ms) and at most three, it is ${nodeSuspectAfterMs} ms`,
    );
  if (orphanAfterMs !== 0 && orphanAfterMs < ORPHAN_AFTER_MIN_MS)
    throw invalidField(
      'orphan-after',
      `must be ${ORPHAN_AFTER_MIN_MS / 1000}s or more, it is ${orphanAfterMs} ms`,
    );
  if (rescheduleMaxPercent < 0 || rescheduleMaxPercent > 100)
    throw invalidField('reschedule-max', 'must be 0 to 100 percent');
}

function validateExternalCa({ protocol, url }: ExternalCa): void {
  if (protocol !== 'cfssl') throw invalidField('external-ca', `protocol is "${protocol}", must be cfssl`);
  if (!/^https?:\/\/\S+$/.test(url))
    throw invalidField('external-ca', `url is "${url}", must be http://… or https://…`);
}

/** Throws `invalid-argument` on the first field that is wrong. */
export function validateClusterNetwork(network: ClusterNetwork): void {
  const { addressPools, addressPoolMaskLength: mask, dataPathPort } = network;
  if (dataPathPort < DATA_PATH_PORT_MIN || dataPathPort > DATA_PATH_PORT_MAX)
    throw invalidField('data-path-port', `must be ${DATA_PATH_PORT_MIN} to ${DATA_PATH_PORT_MAX}`);
  if (mask < MASK_MIN || mask > MASK_MAX)
    throw invalidField('default-addr-pool-mask-length', `must be ${MASK_MIN} to ${MASK_MAX}`);
  for (const pool of addressPools) {
    const [, a, b, c, d, length] = (POOL.exec(pool) ?? []).map(Number);
    const isAddress = [a, b, c, d].every((byte) => byte !== undefined && byte <= 255);
    if (!isAddress || length === undefined || length > 32)
      throw invalidField('default-addr-pool', `"${pool}" is no network; it has to be as in 10.0.0.0/8`);
    if (length > mask)
      throw invalidField(
        'default-addr-pool',
        `${pool} is smaller than one subnet of /${mask}; see --default-addr-pool-mask-length`,
      );
  }
}
