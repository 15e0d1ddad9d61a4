// `tsswarm logout`: forgets the credentials for a registry.

import { defineCommand } from '../command.ts';
import { eraseRegistryAuth, registryKey, registryNamed } from '../registry/docker-config.ts';

export const command = defineCommand({
  usage: '[SERVER]',
  args: { min: 0, max: 1 },
  flags: {},
  async run({ args: [server], io }) {
    const registry = registryNamed(server);
    const key = registryKey(registry);
    const isErased = await eraseRegistryAuth(io, registry);
    await io.out(isErased ? `Removing login credentials for ${key}\n` : `Not logged in to ${key}\n`);
  },
});
