// The configuration file of the containerd that this engine owns, and the places it uses.

import path from 'node:path';
import { SwarmError } from '../../../core/errors.ts';

export interface ContainerdPlaces {
  readonly root: string;
  readonly state: string;
  readonly socketPath: string;
  readonly configPath: string;
  readonly processPath: string;
  readonly logPath: string;
  readonly emptyFilePath: string;
}

// struct sockaddr_un holds 108 bytes, the last one NUL.
const SOCKET_PATH_BYTES_MAX = 107;

// What the engine does not call. Each one left on costs memory at idle; `opt` also creates /opt/containerd.
const DISABLED_PLUGINS = [
  'io.containerd.grpc.v1.cri',
  'io.containerd.internal.v1.opt',
  'io.containerd.internal.v1.restart',
  'io.containerd.internal.v1.tracing',
  'io.containerd.tracing.processor.v1.otlp',
  'io.containerd.monitor.v1.cgroups',
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.native',
  'io.containerd.snapshotter.v1.zfs',
];

/** Where containerd of these two directories lives. Throws when its socket path would be too long for the kernel. */
export function containerdPlaces(dataRoot: string, runDir: string): ContainerdPlaces {
  const socketPath = path.join(runDir, 'containerd.sock');
  // containerd puts a second socket beside its own.
  const longest = `${socketPath}.ttrpc`;
  if (Buffer.byteLength(longest) > SOCKET_PATH_BYTES_MAX) {
    throw new SwarmError(
      'invalid-argument',
      `socket path ${longest} is longer than ${SOCKET_PATH_BYTES_MAX} bytes`,
      {
        hint: 'Choose a shorter run directory.',
      },
    );
  }
  return {
    root: path.join(dataRoot, 'containerd'),
    state: path.join(runDir, 'containerd'),
    socketPath,
    configPath: path.join(runDir, 'containerd.toml'),
    processPath: path.join(runDir, 'containerd.process'),
    logPath: path.join(runDir, 'containerd.log'),
    emptyFilePath: path.join(runDir, 'empty'),
  };
}

/** The text of containerd's configuration. A running containerd with another text is restarted. */
export function containerdConfiguration(places: ContainerdPlaces, hidesUnifiedControllers: boolean): string {
  const quote = (text: string) => JSON.stringify(text);
  return `# Written by tsswarm at every start.
# Controllers of the unified hierarchy hidden: ${hidesUnifiedControllers}
version = 2
root = ${quote(places.root)}
state = ${quote(places.state)}
oom_score = 0
disabled_plugins = [${DISABLED_PLUGINS.map(quote).join(', ')}]

[grpc]
  address = ${quote(places.socketPath)}

[plugins."io.containerd.metadata.v1.bolt"]
  content_sharing_policy = "shared"

[debug]
  level = "warn"
`;
}
