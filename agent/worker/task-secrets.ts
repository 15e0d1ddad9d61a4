// What the files of a task's secrets and configs contain, when it begins and whenever a version is new.

import { messageOf } from '../../core/errors.ts';
import type {
  ContainerSpec,
  FileReference,
  FileVersion,
  NodeDescription,
  RegistryAuth,
  Revision,
  Task,
} from '../../core/generated/objects.ts';
import {
  expandContainer,
  expandPayload,
  type PayloadSources,
  type TaskFacts,
} from '../../core/task-template.ts';
import { type PayloadKind, targetOf } from '../../core/validate-payload.ts';
import { validateContainer } from '../../core/validate-spec.ts';
import type { NodePayload, Payloads } from '../../proto/generated/dispatcher.ts';
import type { ContainerFile, UserMapping } from '../engine/engine.ts';
import { idOnMachine } from '../engine/users/container-users.ts';
import { PayloadBook } from '../secrets/payload-book.ts';
import type { TaskFile, TaskFiles } from '../secrets/task-files.ts';
import { imagesOf } from './service-images.ts';

/** What became of files that a new version asked for. */
export interface Refreshment {
  /** To be sent to the container's process, each once. */
  readonly signals: readonly string[];
  /** Why some files are not of the version that they should be; empty: all are. */
  readonly problem: string;
  /** Of each file, what it is of now; undefined where it is not what it should be. */
  readonly versions: readonly (FileVersion | undefined)[];
}

export interface WantedFile {
  readonly kind: PayloadKind;
  readonly reference: FileReference;
}

export class TaskSecrets {
  readonly #book = new PayloadBook();
  readonly #files: TaskFiles;
  readonly #describe: () => NodeDescription;
  /** Stays what it is while the daemon runs. */
  #node: NodeDescription | undefined;

  constructor(files: TaskFiles, describe: () => NodeDescription) {
    this.#files = files;
    this.#describe = describe;
  }

  /** Returns of which secrets and configs it has versions that it had not before. */
  hear(payloads: Payloads): Set<string> {
    return this.#book.hear(payloads);
  }

  /** What the image is pulled with, undefined when nothing was given. Throws `unavailable` while nobody has told. */
  registryAuth(revision: Revision): RegistryAuth | undefined {
    return revision.registryAuth ? this.#book.registryAuth(revision) : undefined;
  }

  /** The task's container with its templates filled in. Throws `invalid-argument`. */
  container(task: Task, revision: Revision): ContainerSpec {
    const container = expandContainer(revision.spec.task.container, this.#facts(task, revision));
    validateContainer(container);
    return container;
  }

  /** The images of the task's container and its mounts; none when its templates fail. */
  images(task: Task, revision: Revision): string[] {
    const { container } = revision.spec.task;
    const plain = imagesOf(container);
    if (!plain.some((image) => image.includes('{{'))) return plain;
    try {
      return imagesOf(expandContainer(container, this.#facts(task, revision)));
    } catch {
      // The task is refused when it is prepared.
      return [];
    }
  }

  /** What files that are made now are of. Throws as making them does. */
  versions(container: ContainerSpec): FileVersion[] {
    return wantedFiles(container).map(({ kind, reference }) => this.#book.versionOf(kind, reference));
  }

  /** Makes the files, for a container with these users. Throws when one cannot be made. */
  provide(
    task: Task,
    revision: Revision,
    { container, users }: { container: ContainerSpec; users: UserMapping | undefined },
  ): ContainerFile[] {
    const wanted = wantedFiles(container);
    if (wanted.length === 0) return [];
    const contents = wanted.map((each) =>
      ownedInside(this.#content(each, task, revision, container), each, users),
    );
    const sources = this.#files.write(task.id, contents);
    return wanted.map(({ kind, reference }, position) => ({
      source: sources[position] as string,
      target: targetOf(kind, reference),
    }));
  }

  /** Replaces the files of a task whose contents are not what they should be. */
  refresh(task: Task, revision: Revision, users: UserMapping | undefined): Refreshment {
    const signals = new Set<string>();
    const problems: string[] = [];
    const versions: (FileVersion | undefined)[] = [];
    const container = this.container(task, revision);
    for (const [position, each] of wantedFiles(container).entries()) {
      const { kind, reference } = each;
      try {
        const content = ownedInside(this.#content(each, task, revision, container), each, users);
        versions[position] = this.#book.versionOf(kind, reference);
        const current = this.#files.read(task.id, position);
        if (current === undefined || Buffer.compare(current, content.data) === 0) continue;
        this.#files.replace(task.id, position, content);
        if (reference.signal !== '') signals.add(reference.signal);
      } catch (error) {
        versions[position] = undefined;
        problems.push(
          `${kind} ${reference.sourceName} is not up to date in the container: ${messageOf(error)}`,
        );
      }
    }
    return { signals: [...signals], problem: problems.join('; '), versions };
  }

  remove(taskId: string): void {
    this.#files.remove(taskId);
  }

  /** Tasks with files. */
  list(): string[] {
    return this.#files.list();
  }

  #content(
    { kind, reference }: WantedFile,
    task: Task,
    revision: Revision,
    container: ContainerSpec,
  ): TaskFile {
    const payload = this.#book.get(kind, reference);
    const { uid, gid, mode } = reference;
    if (payload.templateDriver === '') return { data: payload.data, uid, gid, mode };
    const data = expandPayload(payload.data, this.#facts(task, revision), this.#sources(container));
    return { data, uid, gid, mode };
  }

  /** The bytes as they were sent: a template in a template stays one. */
  #sources(container: ContainerSpec): PayloadSources {
    const textOf = (kind: PayloadKind) => (target: string) => {
      const found = wantedFiles(container).find(
        (each) =>
          each.kind === kind &&
          (each.reference.target === target || targetOf(kind, each.reference) === target),
      );
      if (found === undefined) throw new Error(`the service has no ${kind} with the target "${target}"`);
      return textOfPayload(this.#book.get(kind, found.reference));
    };
    return {
      secret: textOf('secret'),
      config: textOf('config'),
      env: (name) =>
        container.env.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1) ?? '',
    };
  }

  #facts(task: Task, { spec }: Revision): TaskFacts {
    this.#node ??= this.#describe();
    const { hostname, platform } = this.#node;
    return {
      service: { id: task.serviceId, name: spec.name, labels: spec.labels },
      node: { id: task.nodeId, hostname, platform },
      task: { id: task.id, slot: task.slot },
    };
  }
}

/** With the machine's ids of those who own it in the container. */
function ownedInside(
  file: TaskFile,
  { kind, reference }: WantedFile,
  users: UserMapping | undefined,
): TaskFile {
  if (users === undefined) return file;
  const id = (what: 'uid' | 'gid') =>
    idOnMachine(users, file[what], `${kind} ${reference.sourceName}: ${what}`);
  return { ...file, uid: id('uid'), gid: id('gid') };
}

/** Whether some file follows what these secrets and configs are now. */
export function follows({ spec }: Revision, sourceIds: ReadonlySet<string>): boolean {
  return wantedFiles(spec.task.container).some(({ reference }) => sourceIds.has(reference.sourceId));
}

/** In the order of the files, which is that of the versions in a task's status. */
export function wantedFiles({ secrets, configs }: ContainerSpec): WantedFile[] {
  const of = (kind: PayloadKind) => (reference: FileReference) => ({ kind, reference });
  return [...secrets.map(of('secret')), ...configs.map(of('config'))];
}

function textOfPayload({ data }: NodePayload): string {
  return Buffer.from(data.buffer, data.byteOffset, data.length).toString('utf8');
}
