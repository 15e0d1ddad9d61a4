// What the local engine offers, free of cluster words: images and containers on one machine. The worker drives it;
// single containers, a builder and Docker's own API are to use the same interface.
// Every method is safe to repeat after a crash: an operation that finds its work done succeeds.

import type { ContainerSpec, HealthCheck, Mount, ResourceLimits } from '../../core/generated/objects.ts';
import type { LogTarget } from '../../core/log-driver.ts';
import type { NetworkProbe } from '../../core/network-probe.ts';

/** Counters are since the start of the container. */
export interface ContainerStats {
  readonly timeMs: number;
  readonly cpuNanos: number;
  /** Without what the kernel can drop at once. */
  readonly memoryBytes: number;
  /** The machine's memory when there is no limit. */
  readonly memoryLimitBytes: number;
  readonly pids: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** As the machine sees it. */
export interface ContainerProcessInfo {
  readonly user: string;
  readonly pid: number;
  readonly parentPid: number;
  readonly startedAtMs: number;
  /** "?" when it has none. */
  readonly tty: string;
  readonly cpuMs: number;
  readonly command: string;
}

export interface RegistryCredentials {
  readonly username: string;
  readonly password: string;
  /** In place of the password, where the registry knows OAuth2. */
  readonly identityToken?: string;
}

export interface PullProgress {
  /** Layer digest; empty for the image as a whole. */
  readonly id: string;
  readonly status: string;
  readonly currentBytes: number;
  readonly totalBytes: number;
}

export interface PullOptions {
  readonly credentials?: RegistryCredentials;
  /** "os/arch[/variant]"; absent: this machine's. */
  readonly platform?: string;
  readonly onProgress?: (progress: PullProgress) => void;
  readonly signal?: AbortSignal;
}

/** An image as it lies unpacked on this machine. */
export interface LocalImage {
  /** Digest of the index or manifest that the name points at. */
  readonly digest: string;
  /** Digest of the configuration: Docker's image id. */
  readonly id: string;
  readonly tags: readonly string[];
  readonly digests: readonly string[];
  readonly createdAtMs: number;
  readonly sizeBytes: number;
  readonly labels: Readonly<Record<string, string>>;
}

/** A layer as its registry has it and as it lies on the disk. */
export interface LayerSize {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly unpackedBytes: number;
}

export interface ImageDetails {
  readonly summary: LocalImage;
  /** The image's configuration as it came, JSON. */
  readonly configuration: Uint8Array;
  readonly layers: readonly LayerSize[];
}

/** What may be removed of that which nobody needs. */
export interface ImageSelection {
  /** Also images with tags. */
  readonly all: boolean;
  /** Made before this; 0: whenever. */
  readonly untilMs: number;
  /** KEY or KEY=VALUE. */
  readonly labels: readonly string[];
  readonly withoutLabels: readonly string[];
}

export interface PruneResult {
  readonly untagged: readonly string[];
  readonly deleted: readonly string[];
  readonly reclaimedBytes: number;
}

export interface ImageFromFiles {
  /** Absent: it gets no tag. */
  readonly reference?: string;
  readonly message?: string;
  /** Lines of a Dockerfile. */
  readonly changes?: readonly string[];
  readonly platform?: string;
}

export interface ResolvedImage {
  readonly digest: string;
  readonly platforms: readonly { readonly os: string; readonly architecture: string }[];
}

/** "os/arch[/variant]": an image that is of another one is not meant. */
export interface PlatformOption {
  readonly platform?: string;
}

/** How an archive is read. */
export interface ArchiveOptions extends PlatformOption {
  /** Of the image, when the archive has none. */
  readonly name?: string;
}

export interface Images {
  list(): Promise<LocalImage[]>;
  /** The image that a reference (tag, digest or id) names, or undefined when it is not here. */
  find(reference: string): Promise<LocalImage | undefined>;
  /** Downloads and unpacks; returns the digest. `not-found` when the registry has no such image. */
  pull(reference: string, options?: PullOptions): Promise<string>;
  /** Asks the registry, changes nothing here. */
  resolve(reference: string, options?: Pick<PullOptions, 'credentials' | 'signal'>): Promise<ResolvedImage>;
  /** The tags that a repository has in its registry. */
  tags(reference: string, options?: Pick<PullOptions, 'credentials' | 'signal'>): Promise<string[]>;
  /** Reads an OCI or Docker archive, plain or gzipped; returns the names it gave. */
  import(archive: AsyncIterable<Uint8Array>, options?: ArchiveOptions): Promise<string[]>;
  /** Writes one archive that is both OCI layout and Docker archive. */
  export(references: readonly string[], options?: PlatformOption): AsyncIterable<Uint8Array>;
  remove(
    reference: string,
    options?: PlatformOption & { readonly force?: boolean },
  ): Promise<{ untagged: string[]; deleted: string[] }>;
  /** Whether a registry takes the credentials: `permission-denied` when not. */
  check(registry: string, credentials: RegistryCredentials, signal?: AbortSignal): Promise<void>;
  /** Sends an image to the registry of its name; returns the manifest's digest and size. */
  push(reference: string, options?: PullOptions): Promise<{ digest: string; sizeBytes: number }>;
  /** Gives an image another name. */
  tag(source: string, target: string): Promise<void>;
  inspect(reference: string, options?: PlatformOption): Promise<ImageDetails>;
  /** Makes an image of a root file system's archive; returns its id. */
  create(files: AsyncIterable<Uint8Array>, options: ImageFromFiles): Promise<string>;
  prune(selection: ImageSelection): Promise<PruneResult>;
}

export interface LogSettings {
  /** A json file is rotated when it reaches this size; 0: never. */
  readonly maxSizeBytes: number;
  /** Files kept, the current one included. */
  readonly maxFiles: number;
  /** Files that were rotated are compressed. */
  readonly compress?: boolean;
  /** False: nothing is kept here, and nothing can be read back. */
  readonly keepsFile?: boolean;
  /** Name, for messages. */
  readonly driver?: string;
  /** Where lines go as well. */
  readonly target?: LogTarget;
  /** What the container is called there. */
  readonly tag?: string;
  readonly name?: string;
  /** Kept and sent with each line. */
  readonly details?: Readonly<Record<string, string>>;
}

/** What few containers ask for. Empty means as usual. */
export type ContainerOptions = Pick<
  ContainerSpec,
  | 'annotations'
  | 'capabilitiesAdded'
  | 'capabilitiesDropped'
  | 'cgroupParent'
  | 'cgroupnsMode'
  | 'deviceCgroupRules'
  | 'devices'
  | 'hosts'
  | 'init'
  | 'ipcMode'
  | 'oomScoreAdj'
  | 'pidMode'
  | 'privileged'
  | 'runtime'
  | 'security'
  | 'shmSizeBytes'
  | 'sysctls'
  | 'ulimits'
  | 'usernsMode'
  | 'utsMode'
>;

/** The network namespace of this process, as a path for a container that has no network of its own. */
export const HOST_NETWORK = '/proc/self/ns/net';

/** A file of the machine, bound read-only into a container. What is mounted over it later, the container gets as well. */
export interface ContainerFile {
  readonly source: string;
  readonly target: string;
}

/** All that makes a container. Empty strings and lists mean "what the image says". */
export interface ContainerConfig extends ContainerOptions {
  readonly id: string;
  /** Must be here already (`Images.pull`). */
  readonly image: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly workdir: string;
  /** "user[:group]", names or numbers, looked up in the image. */
  readonly user: string;
  readonly groups: readonly string[];
  /** Empty: the first 12 characters of the id. */
  readonly hostname: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly mounts: readonly Mount[];
  readonly files?: readonly ContainerFile[];
  readonly readOnly: boolean;
  readonly tty: boolean;
  /** Standard input stays open, for who attaches. */
  readonly openStdin: boolean;
  /** Empty: the image's, else SIGTERM. */
  readonly stopSignal: string;
  readonly limits: ResourceLimits;
  /** Bound into the cgroup as a soft guarantee (cpu shares, memory reservation); 0: none. */
  readonly reservedMemoryBytes: number;
  readonly logs: LogSettings;
  /** What is empty or absent is as the image says. The engine runs no checks by itself: see `ContainerSummary`. */
  readonly healthCheck?: HealthCheck;
  /** Network namespace to join, and the files that go with it. Absent: an own, empty one with loopback only. */
  readonly network?: {
    readonly namespacePath: string;
    /** Contents of /etc/resolv.conf. */
    readonly resolvConf: string;
    /** For the container's own lines in /etc/hosts. */
    readonly address: string;
    readonly ipv6Address?: string;
  };
}

export interface ContainerExit {
  readonly exitCode: number;
  readonly exitedAtMs: number;
  readonly outOfMemory: boolean;
}

export type ContainerState =
  | { readonly state: 'created' }
  | { readonly state: 'running'; readonly pid: number; readonly startedAtMs: number }
  | { readonly state: 'exited'; readonly exit: ContainerExit };

/** A health check with nothing left open. */
export interface ContainerHealthCheck extends Omit<HealthCheck, 'test'> {
  /** For `Containers.exec`; empty when a port is asked. */
  readonly command: readonly string[];
  /** For `Containers.probe`. */
  readonly probe?: NetworkProbe;
}

export interface ContainerSummary {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly status: ContainerState;
  /** Absent: it has the machine's. */
  readonly users?: UserMapping;
  /** How to find out whether it can answer; absent: nobody knows. */
  readonly healthCheck?: ContainerHealthCheck;
}

/** A command to run beside a container's own process: as its user, in its environment, directory, cgroup and limits. */
export interface ExecRequest {
  readonly command: readonly string[];
  /** Of the whole run. Then it is killed, with what it has started. */
  readonly timeoutMs: number;
  /** Kills it as well. */
  readonly signal?: AbortSignal;
}

export interface ProbeLimits {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export interface ExecResult {
  /** 137 when it was killed. */
  readonly exitCode: number;
  /** The last 4 KiB of stdout and stderr together. */
  readonly output: string;
  readonly hasTimedOut: boolean;
}

/** A command that somebody talks to. What is empty is as for the container's own process. */
export interface ExecSessionRequest {
  readonly command: readonly string[];
  /** NAME=value, over what the container has. */
  readonly env: readonly string[];
  readonly workdir: string;
  /** "user[:group]", looked up in the container. */
  readonly user: string;
  readonly privileged: boolean;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly size?: WindowSize;
}

export interface WindowSize {
  readonly columns: number;
  readonly rows: number;
}

export interface OutputChunk {
  readonly stream: 'stdout' | 'stderr';
  readonly data: Uint8Array;
}

/** A command that runs. Nobody holds more of its data than its FIFOs do: it waits for who reads. */
export interface ExecSession {
  /** For one reader. Ends when the command has, and all that it wrote is read. */
  readonly output: AsyncIterable<OutputChunk>;
  /** 137 when it was killed. Also when nobody reads the output any more. */
  readonly exited: Promise<number>;
  /** Resolves when the command's stdin has taken it. Drops it when the command does not read any more. */
  write(data: Uint8Array): Promise<void>;
  /** The command reads the end of its stdin. A terminal has none: there it is a key. */
  endInput(): Promise<void>;
  resize(size: WindowSize): Promise<void>;
  signal(name: string): Promise<void>;
  /** With what it has started. */
  kill(): void;
}

/** Who talks to a container's own process. Leaving is not its end, nor is the end of what is typed that of its stdin. */
export interface AttachSession extends Omit<ExecSession, 'kill' | 'endInput'> {
  readonly tty: boolean;
  /** What is written is read by somebody. */
  readonly stdin: boolean;
  leave(): void;
}

export interface LogRecord {
  readonly stream: 'stdout' | 'stderr';
  /** RFC 3339 with nanoseconds. */
  readonly time: string;
  /** With its final newline, when it had one. */
  readonly line: string;
  /** What the options of the log say that its container is to tell of itself. */
  readonly details?: Readonly<Record<string, string>>;
}

export interface LogQuery {
  /** Lines from the end; negative or absent: all. */
  readonly tail?: number;
  /** Lines behind the one of this time, instead of those from the end. Of a log, no two lines have the same time. */
  readonly after?: string;
  readonly sinceMs?: number;
  /** No line after this; who follows stops then. */
  readonly untilMs?: number;
  /** Goes on until the container has ended and everything is read. */
  readonly follow?: boolean;
  readonly signal?: AbortSignal;
}

/** Users and groups 0 to 65535 of a container are `firstId` and following of the machine, where they are nobody. */
export interface UserMapping {
  readonly firstId: number;
  /** Pins of its user namespace, and of a network namespace that belongs to that. */
  readonly userNamespace: string;
  readonly networkNamespace: string;
}

export interface Containers {
  /**
   * Users of its own for a container with `usernsMode` "private", which `create` claims when nobody has: who makes the
   * container's network needs them before. They are given back by `remove`. `resource-exhausted` when the machine has no
   * ids left.
   */
  claimUsers(id: string): Promise<UserMapping>;
  /** Record, snapshot, files and log spool. Not yet a process. */
  create(config: ContainerConfig): Promise<void>;
  /** Starts the process of a created container; returns its pid. A bad command is `invalid-argument`. */
  start(id: string): Promise<number>;
  /** Resolves when the container has ended, also if it had before the call and across restarts of containerd. */
  wait(id: string, signal?: AbortSignal): Promise<ContainerExit>;
  /** Sends the stop signal, waits `graceMs`, kills. Resolves when the process is gone. */
  stop(id: string, graceMs: number): Promise<void>;
  kill(id: string, signal: string): Promise<void>;
  /**
   * Gives a container that runs other limits of CPU, memory and processes. `failed-precondition` when it does not run, or
   * when the kernel refuses: a limit of memory below what is used.
   */
  update(id: string, limits: ResourceLimits, reservedMemoryBytes: number): Promise<void>;
  /** Kills if need be and removes every trace; the logs too unless `keepLogs`. */
  remove(id: string, options?: { readonly keepLogs?: boolean }): Promise<void>;
  /** Undefined when there is no such container. */
  inspect(id: string): Promise<ContainerSummary | undefined>;
  /** All containers of this engine. */
  list(): Promise<ContainerSummary[]>;
  /** In the order of their times, some at once. */
  logs(id: string, query?: LogQuery): AsyncIterable<readonly LogRecord[]>;
  /**
   * Runs a command until it ends; what it leaves running is killed as long as it holds the output. A command that cannot
   * be run is `invalid-argument`, a container that does not run `failed-precondition`. Rejects with the signal's reason
   * when aborted.
   */
  exec(id: string, request: ExecRequest): Promise<ExecResult>;
  /** Starts a command; errors as for `exec`. It is not ended by anything but `kill`, its container, or the next engine. */
  openExec(id: string, request: ExecSessionRequest): Promise<ExecSession>;
  /** What the container's process writes from now on, as it comes, and its stdin. */
  attach(id: string): Promise<AttachSession>;
  /** What it uses and has used; `failed-precondition` when it does not run. */
  stats(id: string): Promise<ContainerStats>;
  /** Its own and those of commands; `failed-precondition` when it does not run. */
  processes(id: string): Promise<readonly ContainerProcessInfo[]>;
  /**
   * Asks a port of the container from inside its network. What is wrong, or undefined. A container that does not run is
   * `failed-precondition`. Rejects with the signal's reason when aborted.
   */
  probe(id: string, probe: NetworkProbe, limits: ProbeLimits): Promise<string | undefined>;
}

export interface VolumeRequest {
  /** Empty: a name of 64 characters is made up, and the volume is anonymous. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Of the driver `local`: type, device and o, as for mount(8). None: a directory of the engine. */
  readonly options: Readonly<Record<string, string>>;
}

export interface VolumeSummary extends VolumeRequest {
  /** Nobody chose its name. */
  readonly isAnonymous: boolean;
  readonly createdAtMs: number;
  readonly mountpoint: string;
  /** Ids of the containers that have it. */
  readonly usedBy: readonly string[];
}

export interface Volumes {
  /** One that is there is the answer, unless its options are others: then `already-exists`. */
  create(request: VolumeRequest): Promise<VolumeSummary>;
  list(): Promise<VolumeSummary[]>;
  /** With its data. `not-found`; `failed-precondition` naming the container that has it. */
  remove(name: string): Promise<void>;
}

export interface EngineDescription {
  readonly containerdVersion: string;
  /** "crun 1.8.1" */
  readonly runtime: string;
  readonly cgroupVersion: '1' | '2';
  /** What this machine lacks, in sentences for an operator. */
  readonly warnings: readonly string[];
}

export interface Engine extends AsyncDisposable {
  readonly images: Images;
  readonly containers: Containers;
  readonly volumes: Volumes;
  describe(): Promise<EngineDescription>;
}
