// Typed clients of one containerd, all on one connection and inside one containerd namespace.

import { ContainersService } from '../../../proto/generated/containerd-containers.ts';
import { ContentService } from '../../../proto/generated/containerd-content.ts';
import { DiffService } from '../../../proto/generated/containerd-diff.ts';
import { EventsService } from '../../../proto/generated/containerd-events.ts';
import { ImagesService } from '../../../proto/generated/containerd-images.ts';
import { LeasesService } from '../../../proto/generated/containerd-leases.ts';
import { NamespacesService } from '../../../proto/generated/containerd-namespaces.ts';
import { SnapshotsService } from '../../../proto/generated/containerd-snapshots.ts';
import { TasksService } from '../../../proto/generated/containerd-tasks.ts';
import { VersionService } from '../../../proto/generated/containerd-version.ts';
import { type Client, createClient, openChannel } from '../../../rpc/client.ts';

/** The one snapshotter in use. */
export const SNAPSHOTTER = 'overlayfs';

export interface Containerd {
  readonly namespace: string;
  readonly containers: Client<typeof ContainersService>;
  readonly content: Client<typeof ContentService>;
  readonly diff: Client<typeof DiffService>;
  readonly events: Client<typeof EventsService>;
  readonly images: Client<typeof ImagesService>;
  readonly leases: Client<typeof LeasesService>;
  readonly namespaces: Client<typeof NamespacesService>;
  readonly snapshots: Client<typeof SnapshotsService>;
  readonly tasks: Client<typeof TasksService>;
  readonly version: Client<typeof VersionService>;
  close(): void;
}

/** Connects lazily; calls made while containerd is away fail with `unavailable`. */
export function connectContainerd(socketPath: string, namespace: string): Containerd {
  const channel = openChannel(`unix://${socketPath}`);
  const metadata = { 'containerd-namespace': namespace };
  return {
    namespace,
    containers: createClient(ContainersService, channel, metadata),
    content: createClient(ContentService, channel, metadata),
    diff: createClient(DiffService, channel, metadata),
    events: createClient(EventsService, channel, metadata),
    images: createClient(ImagesService, channel, metadata),
    leases: createClient(LeasesService, channel, metadata),
    namespaces: createClient(NamespacesService, channel, metadata),
    snapshots: createClient(SnapshotsService, channel, metadata),
    tasks: createClient(TasksService, channel, metadata),
    version: createClient(VersionService, channel, metadata),
    close: () => channel.close(),
  };
}
