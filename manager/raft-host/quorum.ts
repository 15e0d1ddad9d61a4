// Why nobody leads, in words an operator can act on.

import type { RaftStatus } from './host-options.ts';

/** Undefined while there is a leader, or for a manager that is in no cluster yet. */
export function explainQuorum({ leaderId, configuration, self, peers }: RaftStatus): string | undefined {
  const { voters, members } = configuration;
  if (leaderId !== 0 || voters.length === 0) return undefined;
  const needed = Math.floor(voters.length / 2) + 1;
  const connected = new Set(peers.filter(({ isConnected }) => isConnected).map(({ member }) => member.id));
  connected.add(self.id);
  const addressOf = (id: number) => members.find((member) => member.id === id)?.address ?? String(id);
  const missing = voters.filter((id) => !connected.has(id)).map(addressOf);
  const count = voters.length - missing.length;
  const sum = `${needed} of ${voters.length} managers are needed, ${count} are reached`;
  if (count >= needed) return `${sum}: a leader should be elected in a moment.`;
  return (
    `${sum}; not ${missing.join(', ')}. Bring one back, or, if they are gone for good, run ` +
    '"tsswarm init --force-new-cluster" on one of those that are left. Running tasks go on meanwhile.'
  );
}
