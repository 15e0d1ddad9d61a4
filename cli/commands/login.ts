// `tsswarm login`: has a registry check credentials, and keeps them for the commands that need them.

import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { hasCode, invalidField, messageOf } from '../../core/errors.ts';
import type { RegistryAuth } from '../../core/generated/objects.ts';
import { parseImageReference } from '../../core/image-reference.ts';
import { defineCommand } from '../command.ts';
import type { NodeControl } from '../connection.ts';
import { switchFlag, textFlag } from '../flags/flag.ts';
import { readLine } from '../input-line.ts';
import type { Io } from '../io.ts';
import { findRegistryAuth, registryNamed, storeRegistryAuth } from '../registry/docker-config.ts';
import { UsageError } from '../usage-error.ts';

export const command = defineCommand({
  usage: '[OPTIONS] [SERVER]',
  args: { min: 0, max: 1 },
  flags: {
    username: textFlag('Username', { shorthand: 'u' }),
    password: textFlag('Password or Personal Access Token (PAT)', { shorthand: 'p' }),
    'password-stdin': switchFlag('Take the Password or Personal Access Token (PAT) from stdin'),
  },
  async run({ flags, args: [server], io, connection }) {
    const registry = registryNamed(server);
    requireRegistry(registry);
    if (flags.password !== undefined && flags['password-stdin'])
      throw new UsageError('--password and --password-stdin are mutually exclusive');
    if (flags['password-stdin'] && !flags.username)
      throw new UsageError('the --password-stdin option requires --username to be set');
    if (flags.password !== undefined)
      io.err('WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n');
    const known = flags.username === undefined ? await findRegistryAuth(io, registry) : undefined;
    const node = await connection.node();
    if (known !== undefined && (await isTaken(node, known, io))) return;
    const auth = await ask(io, registry, flags);
    await node.checkRegistry({ auth });
    const file = await storeRegistryAuth(io, auth);
    if (file !== undefined)
      io.err(
        `WARNING! Your credentials are stored unencrypted in '${file}'.\nConfigure a credential helper to remove this warning ("credsStore" in that file).\n\n`,
      );
    await io.out('Login Succeeded\n');
  },
});

/** What is known already may have been changed: then it is asked for again. */
async function isTaken(node: NodeControl, auth: RegistryAuth, io: Io): Promise<boolean> {
  await io.out('Authenticating with existing credentials...\n');
  try {
    await node.checkRegistry({ auth });
  } catch (error) {
    if (!hasCode(error, 'permission-denied')) throw error;
    io.err(`Login did not succeed, error: ${error.message}\n`);
    return false;
  }
  await io.out('Login Succeeded\n');
  return true;
}

interface Given {
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly 'password-stdin': boolean | undefined;
}

async function ask(io: Io, registry: string, given: Given): Promise<RegistryAuth> {
  const username = given.username ?? (await askName(io));
  if (username === '') throw invalidField('username', 'must not be empty');
  const password = given['password-stdin']
    ? (await text(Readable.from(io.stdin))).replace(/\r?\n$/, '')
    : (given.password ?? (await io.readSecret('Password: ')));
  if (password === undefined)
    throw new UsageError('cannot ask for a password: standard input is no terminal. Use --password-stdin');
  if (password === '') throw invalidField('password', 'must not be empty');
  return { registry, username, password, identityToken: '' };
}

async function askName(io: Io): Promise<string> {
  await io.out('Username: ');
  return (await readLine(io)).trim();
}

function requireRegistry(registry: string): void {
  try {
    if (parseImageReference(`${registry}/name`).registry === registry) return;
  } catch (error) {
    throw invalidField('server', messageOf(error));
  }
  throw invalidField('server', `${JSON.stringify(registry)} must be HOST[:PORT], as in the names of images`);
}
