// What an operator has to do next, in Docker's words. Pure.

import type { NodeRole } from '../../core/generated/objects.ts';
import type { GetJoinTokensResponse } from '../../proto/generated/control.ts';

export function joinAdvice(role: NodeRole, tokens: GetJoinTokensResponse): string {
  // Without a manager's address nobody can join; the operator may know one.
  const [address = 'HOST:PORT'] = tokens.addresses;
  return `To add a ${role} to this swarm, run the following command:

    tsswarm join --token ${tokens[role]} ${address}

`;
}

export const MANAGER_ADVICE =
  "To add a manager to this swarm, run 'tsswarm join-token manager' and follow the instructions.\n\n";

export function unlockAdvice(key: string): string {
  return `To unlock a swarm manager after it restarts, run the \`tsswarm unlock\`
command and provide the following key:

    ${key}

Remember to store this key in a password manager, since without it you
will not be able to restart the manager.
`;
}
