// What the engine keeps of one container, in a directory of its own. `container.jsonl` gets a line at each step of its
// life: what it is, that it was started, how it ended; the log lies beside it. The files bound into /etc end with the
// boot, as its network does.

import {
  appendFileSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import type {
  ContainerConfig,
  ContainerExit,
  ContainerHealthCheck,
  LogSettings,
  UserMapping,
} from '../engine.ts';

/** The part of a container's configuration that is needed after its creation. */
export interface ContainerRecordFile {
  readonly id: string;
  readonly manifestDigest: string;
  /** Snapshot of the image. */
  readonly parentSnapshot: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly command: string;
  readonly tty: boolean;
  /** Its standard input stays open, for whoever attaches. */
  readonly openStdin?: boolean;
  readonly stopSignal: string;
  readonly logs: LogSettings;
  readonly healthCheck?: ContainerHealthCheck;
  /** Absent: where the engine has its containers. */
  readonly cgroup?: string;
  /** Absent: it has the machine's. */
  readonly users?: UserMapping;
  /** Names of its volumes. */
  readonly volumes?: readonly string[];
  /** Snapshots and manifest digests of the images that are mounted in it. */
  readonly views?: readonly string[];
  readonly images?: readonly string[];
}

export interface ContainerPlaces {
  /** One directory per container, lasting. */
  readonly root: string;
  /** One directory per container with its files for /etc. In memory: files on a disk cost 1 ms of each start. */
  readonly filesRoot: string;
}

const STEPS_FILE = 'container.jsonl';

// Docker's, byte for byte.
const HOSTS = `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
`;

export class ContainerDirectory {
  readonly path: string;
  /** Has hostname, hosts and resolv.conf. */
  readonly filesPath: string;

  constructor({ root, filesRoot }: ContainerPlaces, id: string) {
    this.path = path.join(root, id);
    this.filesPath = path.join(filesRoot, id);
  }

  /** FIFO of its standard input. */
  get stdinPath(): string {
    return path.join(this.filesPath, 'stdin');
  }

  file(name: string): string {
    return path.join(this.path, name);
  }

  /** Before there is a record: what has to be undone if there never is one. */
  writePlan(plan: CreationPlan): void {
    if (!hasWork(plan)) return;
    mkdirSync(this.path, { recursive: true, mode: 0o711 });
    this.#append(plan);
  }

  readPlan(): CreationPlan {
    const { views = [], claimsUsers = false } = this.#read();
    return { views, claimsUsers };
  }

  create(
    config: ContainerConfig,
    { hostname, record }: { hostname: string; record: ContainerRecordFile },
  ): void {
    for (const directory of [this.path, this.filesPath])
      mkdirSync(directory, { recursive: true, mode: 0o711 });
    const { users } = record;
    const write = (name: string, text: string) => {
      const file = path.join(this.filesPath, name);
      writeFileSync(file, text, { mode: 0o644 });
      if (users !== undefined) chownSync(file, users.firstId, users.firstId);
    };
    const { address, ipv6Address } = config.network ?? {};
    const ownLine = [address, ipv6Address].map((own) => (own ? `${own}\t${hostname}\n` : '')).join('');
    write('hostname', `${hostname}\n`);
    const given = config.hosts.map((line) => `${line.replace(/\s+/, '\t')}\n`).join('');
    write('hosts', HOSTS + given + ownLine);
    write('resolv.conf', config.network?.resolvConf ?? '');
  }

  writeRecord(record: ContainerRecordFile): void {
    this.#append({ record });
  }

  readRecord(): ContainerRecordFile | undefined {
    return this.#read().record;
  }

  /** `bootId` tells a container that a reboot has ended from one that was killed. */
  markStarted(bootId: string, startedAtMs: number): void {
    this.#append({ bootId, startedAtMs });
  }

  /** Undefined when nobody noted it. */
  startedAtMs(): number | undefined {
    return this.#read().startedAtMs;
  }

  startedInBoot(): string | undefined {
    return this.#read().bootId;
  }

  writeExit(exit: ContainerExit): void {
    this.#append({ exit });
  }

  readExit(): ContainerExit | undefined {
    return this.#read().exit;
  }

  isMoreThanLog(): boolean {
    return existsSync(this.filesPath) || this.readRecord() !== undefined || hasWork(this.readPlan());
  }

  /** Removes everything, or all but the log. */
  remove(keepLog: boolean): void {
    rmSync(this.filesPath, { recursive: true, force: true });
    if (!existsSync(this.path)) return;
    if (!keepLog) {
      rmSync(this.path, { recursive: true, force: true });
      return;
    }
    const names = readdirSync(this.path).filter((name) => !name.startsWith('log.json'));
    for (const name of names) rmSync(this.file(name), { recursive: true, force: true });
    if (readdirSync(this.path).length === 0) rmdirSync(this.path);
  }

  #append(step: Steps): void {
    appendFileSync(this.file(STEPS_FILE), `${JSON.stringify(step)}\n`, { mode: 0o600 });
  }

  /** The latest of each. */
  #read(): Steps {
    const file = this.file(STEPS_FILE);
    if (!existsSync(file)) return {};
    return Object.assign({}, ...readFileSync(file, 'utf8').split('\n').map(parseStep));
  }
}

export interface CreationPlan {
  /** Names of snapshots. */
  readonly views: readonly string[];
  /** It claims users that nobody has claimed before. */
  readonly claimsUsers: boolean;
}

function hasWork({ views, claimsUsers }: CreationPlan): boolean {
  return views.length > 0 || claimsUsers;
}

/** What the lines of the file say, together. */
interface Steps extends Partial<CreationPlan> {
  readonly record?: ContainerRecordFile;
  readonly bootId?: string;
  readonly startedAtMs?: number;
  readonly exit?: ContainerExit;
}

function parseStep(line: string): Steps {
  try {
    return JSON.parse(line) as Steps;
  } catch {
    // Torn by a power failure, after which nothing of it is running; or the empty end of the file.
    return {};
  }
}
