// Templates in what a task is made of: Go's, with what is known of the task's service, node and slot. The agent fills
// them in; managers do with an imagined task, so that most mistakes are refused before anything is stored.

import { invalidField, messageOf } from './errors.ts';
import type { ContainerSpec, Mount, Platform, ServiceSpec } from './generated/objects.ts';
import { taskName } from './task-name.ts';
import { compileTemplate } from './template.ts';
import type { TemplateFunction } from './template-functions.ts';

/** What templates may know. */
export interface TaskFacts {
  readonly service: {
    readonly id: string;
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
  };
  readonly node: { readonly id: string; readonly hostname: string; readonly platform: Platform };
  readonly task: { readonly id: string; readonly slot: number };
}

/** What templates in secrets and configs can look up beside the facts. */
export interface PayloadSources {
  /** The text of the file with this target; throws when the task has none. */
  readonly secret: (target: string) => string;
  readonly config: (target: string) => string;
  /** "" when there is none. */
  readonly env: (name: string) => string;
}

const SPEC_LIMITS = { outputLengthMax: 64 * 1024, stepsMax: 10_000 };
// More than fits a config.
const PAYLOAD_LIMITS = { outputLengthMax: 1000 * 1024, stepsMax: 100_000 };
// As long as real ones: what is made of them has limits.
const SAMPLE_ID = 'x'.repeat(25);

/** Throws `invalid-argument` that names the field whose template fails. */
export function expandContainer(container: ContainerSpec, facts: TaskFacts): ContainerSpec {
  const data = templateData(facts);
  const fill = (field: string, source: string) => expand(field, source, data);
  // Each field that may have templates. A new one is added here and nowhere else.
  return {
    ...container,
    env: container.env.map((entry) => fillValue(entry, fill)),
    hostname: fill('hostname', container.hostname),
    mounts: container.mounts.map((mount) => expandMount(mount, fill)),
  };
}

type Fill = (field: string, source: string) => string;

function expandMount(mount: Mount, fill: Fill): Mount {
  return {
    ...mount,
    source: fill('mount: source', mount.source),
    target: fill('mount: target', mount.target),
    volumeLabels: fillValues('volume-label', mount.volumeLabels, fill),
    ...(mount.volumeDriver && {
      volumeDriver: {
        ...mount.volumeDriver,
        options: fillValues('volume-opt', mount.volumeDriver.options, fill),
      },
    }),
  };
}

function fillValues(
  key: string,
  values: Readonly<Record<string, string>>,
  fill: Fill,
): Readonly<Record<string, string>> {
  const filled = Object.entries(values).map(
    ([name, value]) => [name, fill(`mount: ${key} ${name}`, value)] as const,
  );
  return Object.fromEntries(filled);
}

/** Names stay as they are. */
function fillValue(entry: string, fill: Fill): string {
  const equals = entry.indexOf('=');
  if (equals < 0) return entry;
  const name = entry.slice(0, equals);
  return `${name}=${fill(`env: ${name}`, entry.slice(equals + 1))}`;
}

/** A task that such a service could have: what fails for it fails for all. */
export function sampleFacts({ name, labels }: ServiceSpec): TaskFacts {
  return {
    service: { id: SAMPLE_ID, name, labels },
    node: { id: SAMPLE_ID, hostname: 'node', platform: { os: 'linux', architecture: 'amd64' } },
    task: { id: SAMPLE_ID, slot: 1 },
  };
}

/** Throws `invalid-argument` on what is no template; what its fields hold is known to tasks only. */
export function checkPayloadTemplate(data: Uint8Array): void {
  const nothing = () => '';
  compilePayload(data, { secret: nothing, config: nothing, env: nothing });
}

/** The bytes with everything filled in. Throws `invalid-argument`. */
export function expandPayload(data: Uint8Array, facts: TaskFacts, sources: PayloadSources): Uint8Array {
  const run = compilePayload(data, sources);
  try {
    return Buffer.from(run(templateData(facts)));
  } catch (error) {
    throw invalidField('template', messageOf(error));
  }
}

function compilePayload(data: Uint8Array, sources: PayloadSources): (data: unknown) => string {
  const functions: Record<string, TemplateFunction> = {
    secret: (target) => sources.secret(String(target)),
    config: (target) => sources.config(String(target)),
    env: (name) => sources.env(String(name)),
  };
  try {
    const source = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
    return compileTemplate(source, { isStrict: true, functions, limits: PAYLOAD_LIMITS });
  } catch (error) {
    throw invalidField('template', messageOf(error));
  }
}

function expand(field: string, source: string, data: object): string {
  if (!source.includes('{{')) return source;
  try {
    return compileTemplate(source, { isStrict: true, limits: SPEC_LIMITS })(data);
  } catch (error) {
    throw invalidField(field, `template "${source}": ${messageOf(error)}`);
  }
}

function templateData({ service, node, task }: TaskFacts): object {
  return {
    Service: { ID: service.id, Name: service.name, Labels: service.labels },
    Node: {
      ID: node.id,
      Hostname: node.hostname,
      Platform: { Architecture: node.platform.architecture, OS: node.platform.os },
    },
    Task: {
      ID: task.id,
      Name: `${taskName(service.name, { slot: task.slot, nodeId: node.id })}.${task.id}`,
      Slot: task.slot,
    },
  };
}
