// Credentials where Docker keeps them: `$DOCKER_CONFIG/config.json`, else ~/.docker/config.json, in the file itself or in
// the credential helper that it names. What else the file says stays as it is.

import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { invalidField, messageOf, SwarmError } from '../../core/errors.ts';
import type { RegistryAuth } from '../../core/generated/objects.ts';
import type { Io } from '../io.ts';
import { eraseWithHelper, getFromHelper, storeWithHelper } from './credential-helper.ts';

const DOCKER_HUB = 'docker.io';
/** Docker's name for its own registry, in this file only. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';
// What others may read is not secret for long.
const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;
/** As a user name, it says that the secret is an identity token. */
const TOKEN_USER = '<token>';

type Json = Readonly<Record<string, unknown>>;

interface ConfigFile {
  readonly file: string;
  readonly content: Json;
}

/** How the file names a registry. */
export function registryKey(registry: string): string {
  return registry === DOCKER_HUB ? DOCKER_HUB_KEY : registry;
}

/** The registry that an operator means by "https://host/v1/", "host:5000" or nothing. */
export function registryNamed(text: string | undefined): string {
  const host = (text ?? DOCKER_HUB).replace(/^https?:\/\//, '').split('/')[0] as string;
  return ['index.docker.io', 'registry-1.docker.io', ''].includes(host) ? DOCKER_HUB : host;
}

/** What is known for a registry, undefined when nothing is. Throws on a file or helper that is broken. */
export async function findRegistryAuth(io: Io, registry: string): Promise<RegistryAuth | undefined> {
  const { content, file } = await readConfig(io);
  const helper = helperFor(content, registry, file);
  if (helper === undefined) return storedAuth(content, registry, file);
  const found = await getFromHelper(helper, registryKey(registry), io);
  if (found === undefined) return undefined;
  return found.username === TOKEN_USER
    ? { registry, username: '', password: '', identityToken: found.secret }
    : { registry, username: found.username, password: found.secret, identityToken: '' };
}

/** Returns where they are kept in the clear, undefined when a helper has them. */
export async function storeRegistryAuth(io: Io, auth: RegistryAuth): Promise<string | undefined> {
  const { content, file } = await readConfig(io);
  const key = registryKey(auth.registry);
  const helper = helperFor(content, auth.registry, file);
  const isToken = auth.identityToken !== '';
  if (helper !== undefined) {
    const secret = isToken ? auth.identityToken : auth.password;
    await storeWithHelper(helper, { key, username: isToken ? TOKEN_USER : auth.username, secret }, io);
    // Docker notes there that the helper has something.
    await writeConfig(file, { ...content, auths: { ...withoutKey(content, auth.registry), [key]: {} } });
    return undefined;
  }
  const pair = Buffer.from(`${auth.username}:${auth.password}`).toString('base64');
  const entry = { auth: pair, ...(isToken && { identitytoken: auth.identityToken }) };
  await writeConfig(file, { ...content, auths: { ...withoutKey(content, auth.registry), [key]: entry } });
  return file;
}

/** Returns whether there was anything to forget. */
export async function eraseRegistryAuth(io: Io, registry: string): Promise<boolean> {
  const { content, file } = await readConfig(io);
  const helper = helperFor(content, registry, file);
  const isKnown = keyOf(content, registry) !== undefined;
  if (!isKnown && helper === undefined) return false;
  if (helper !== undefined) await eraseWithHelper(helper, registryKey(registry), io);
  if (isKnown) await writeConfig(file, { ...content, auths: withoutKey(content, registry) });
  return isKnown;
}

function storedAuth(content: Json, registry: string, file: string): RegistryAuth | undefined {
  const key = keyOf(content, registry);
  const entry = key === undefined ? undefined : authsOf(content)[key];
  if (typeof entry !== 'object' || entry === null) return undefined;
  const { auth, username, password, identitytoken } = entry as Json;
  const pair =
    typeof auth === 'string' ? Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '') : '';
  const colon = pair.indexOf(':');
  if (pair !== '' && colon < 0)
    throw invalidField(file, `auths.${key}.auth is not the base64 of USERNAME:PASSWORD`);
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  const found = {
    registry,
    username: pair === '' ? text(username) : pair.slice(0, colon),
    password: pair === '' ? text(password) : pair.slice(colon + 1),
    identityToken: text(identitytoken),
  };
  return found.username === '' && found.identityToken === '' ? undefined : found;
}

function authsOf(content: Json): Json {
  const auths = content['auths'];
  return typeof auths === 'object' && auths !== null ? (auths as Json) : {};
}

/** The file may have the registry under an older spelling. */
function keyOf(content: Json, registry: string): string | undefined {
  const auths = authsOf(content);
  const key = registryKey(registry);
  if (Object.hasOwn(auths, key)) return key;
  return Object.keys(auths).find((other) => registryNamed(other) === registry);
}

function withoutKey(content: Json, registry: string): Json {
  const entries = Object.entries(authsOf(content)).filter(([key]) => registryNamed(key) !== registry);
  return Object.fromEntries(entries);
}

/** The name behind "docker-credential-". */
function helperFor(content: Json, registry: string, file: string): string | undefined {
  const helpers = content['credHelpers'];
  const own =
    typeof helpers === 'object' && helpers !== null ? (helpers as Json)[registryKey(registry)] : undefined;
  const name = own ?? content['credsStore'] ?? '';
  if (typeof name !== 'string' || /[^\w.-]/.test(name))
    throw invalidField(file, 'credsStore and credHelpers must hold names of programs');
  return name === '' ? undefined : name;
}

async function readConfig(io: Io): Promise<ConfigFile> {
  const { environment } = io;
  const directory = environment['DOCKER_CONFIG'] || path.join(environment['HOME'] || os.homedir(), '.docker');
  const file = path.join(directory, 'config.json');
  try {
    const content: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (typeof content !== 'object' || content === null || Array.isArray(content))
      throw new Error('it must hold a JSON object');
    return { file, content: content as Json };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return { file, content: {} };
    throw new SwarmError('invalid-argument', `${file} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** The new content is there as a whole or not at all. */
async function writeConfig(file: string, content: Json): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true, mode: DIRECTORY_MODE });
  const partial = `${file}.${process.pid}`;
  const mode = await stat(file).then(
    (stats) => stats.mode & 0o700,
    () => FILE_MODE,
  );
  try {
    await writeFile(partial, `${JSON.stringify(content, undefined, '\t')}\n`, { mode: mode & FILE_MODE });
    await rename(partial, file);
  } catch (error) {
    await rm(partial, { force: true });
    throw new SwarmError('invalid-argument', `${file} cannot be written: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
