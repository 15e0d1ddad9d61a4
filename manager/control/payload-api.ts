// Secrets and configs, as operators create, change, remove and look at them. Both are the same but for who may see
// the bytes, which are objects of their own: one Payload a version.

import { SwarmError } from '../../core/errors.ts';
import {
  type Config,
  emptyMeta,
  type FileVersion,
  type Payload,
  type Secret,
  type Task,
} from '../../core/generated/objects.ts';
import { newId } from '../../core/ids.ts';
import { taskName } from '../../core/task-name.ts';
import { isTerminal } from '../../core/task-state.ts';
import { type PayloadKind, validatePayloadData, validatePayloadSpec } from '../../core/validate-payload.ts';
import type {
  CreatePayloadRequest,
  GetConfigResponse,
  GetSecretResponse,
  PayloadVersion,
  UpdatePayloadRequest,
} from '../../proto/generated/control.ts';
import { PayloadSpecCodec } from '../../proto/generated/objects.ts';
import { payloadId, type TablesView } from '../store/tables.ts';
import type { ControlOptions } from './control-api.ts';
import { findPayloadSource } from './find.ts';
import { referencesOf, requireSameSource, requireUnused, usersOf } from './payload-use.ts';
import { requireSpecSize } from './spec-size.ts';
import type { TakeTurn } from './turns.ts';

type PayloadOptions = Pick<ControlOptions, 'store' | 'randomBytes'> & { readonly takeTurn: TakeTurn };

/** Its first version has the number 1. */
export async function createPayload(
  { store, randomBytes }: PayloadOptions,
  kind: PayloadKind,
  { spec, data }: CreatePayloadRequest,
): Promise<Secret & Config> {
  validatePayloadSpec(spec);
  requireSpecSize(PayloadSpecCodec, spec);
  validatePayloadData(kind, spec, data);
  const id = newId(randomBytes);
  await store.update((tx) => {
    if (tx.view.byName(kind, spec.name) !== undefined)
      throw new SwarmError(
        'already-exists',
        `name conflicts with an existing object: ${kind} ${spec.name} already exists`,
      );
    tx.create<PayloadKind>(kind, { id, meta: emptyMeta, spec, latestVersion: 1 });
    tx.create('payload', newPayload(id, 1, data));
  });
  return stored(store.view, kind, id);
}

/** Labels, and with `data` a new version: what refers to no version gets it at once. */
export async function updatePayload(
  { store }: PayloadOptions,
  kind: PayloadKind,
  { id, version, spec, data }: UpdatePayloadRequest,
): Promise<Secret & Config> {
  validatePayloadSpec(spec);
  requireSpecSize(PayloadSpecCodec, spec);
  if (data !== undefined) validatePayloadData(kind, spec, data);
  await store.update((tx) => {
    const before = stored(tx.view, kind, id);
    // Whoever comes too late hears that first, and not what else is wrong.
    tx.update<PayloadKind>(kind, before, version);
    requireSameSource(kind, before, spec);
    const latestVersion = before.latestVersion + (data === undefined ? 0 : 1);
    tx.update<PayloadKind>(kind, { ...before, spec, latestVersion });
    if (data !== undefined) tx.create('payload', newPayload(id, latestVersion, data));
  });
  return stored(store.view, kind, id);
}

/** With all its versions. Throws `failed-precondition` while a service refers to it. */
export function removePayload(
  { store, takeTurn }: PayloadOptions,
  kind: PayloadKind,
  reference: string,
): Promise<string> {
  return takeTurn(() =>
    store.update((tx) => {
      const source = findPayloadSource(tx.view, kind, reference);
      requireUnused(tx.view, kind, source);
      for (const { id } of tx.view.payloadsOf(source.id)) tx.delete('payload', id);
      tx.delete(kind, source.id);
      return source.id;
    }),
  );
}

export function getSecret(view: TablesView, reference: string): GetSecretResponse {
  const secret = findPayloadSource(view, 'secret', reference);
  return { secret, ...describeUse(view, 'secret', secret.id) };
}

export function getConfig(view: TablesView, reference: string): GetConfigResponse {
  const config = findPayloadSource(view, 'config', reference);
  const newest = view.payload.get(payloadId(config.id, config.latestVersion));
  return { config, ...describeUse(view, 'config', config.id), data: newest?.data ?? new Uint8Array() };
}

function describeUse(view: TablesView, kind: PayloadKind, id: string): Omit<GetSecretResponse, 'secret'> {
  const users = usersOf(view, kind, id);
  const versions: PayloadVersion[] = view
    .payloadsOf(id)
    .map(({ version, meta, data }) => ({
      tasks: holders(view, { sourceId: id, version }),
      version,
      createdAtMs: meta.createdAtMs,
      bytes: data.length,
      pinnedBy: users
        .filter(({ spec }) =>
          referencesOf(kind, spec).some(
            (reference) => reference.sourceId === id && reference.version === version,
          ),
        )
        .map(({ spec }) => spec.name),
    }))
    .sort((a, b) => a.version - b.version);
  return { versions, usedBy: users.map(({ spec }) => spec.name).sort() };
}

/** Tasks that have the version in a file and have not ended. */
function holders(view: TablesView, { sourceId, version }: FileVersion): string[] {
  const holds = ({ status }: Task) =>
    !isTerminal(status.state) &&
    status.files.some((file) => file.sourceId === sourceId && file.version === version);
  return [...view.task.values()]
    .filter(holds)
    .map((task) => {
      const name = view.service.get(task.serviceId)?.spec.name ?? task.serviceId;
      return `${taskName(name, task)}.${task.id}`;
    })
    .sort();
}

function newPayload(sourceId: string, version: number, data: Uint8Array): Payload {
  return { id: payloadId(sourceId, version), meta: emptyMeta, sourceId, version, data };
}

function stored(view: TablesView, kind: PayloadKind, id: string): Secret & Config {
  const source = view[kind].get(id);
  if (source === undefined) throw new SwarmError('not-found', `${kind} ${id} not found`);
  return source;
}
