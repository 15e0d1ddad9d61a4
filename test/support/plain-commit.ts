// Commits whose events can be compared: those of tasks make their objects when they are asked for them, which deepEqual does not.

import type { Commit } from '../../manager/store/store.ts';

export function plainCommit({ index, events }: Commit): Commit {
  return {
    index,
    events: events.map(({ kind, action, object, previous }) => ({
      kind,
      action,
      object,
      ...(previous !== undefined && { previous }),
    })),
  };
}
