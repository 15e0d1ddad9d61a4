// Programs that keep credentials, by Docker's protocol: "docker-credential-NAME get|store|erase" with the request on
// standard input and JSON on standard output.

import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { messageOf, SwarmError } from '../../core/errors.ts';
import type { Io } from '../io.ts';

export interface HelperCredentials {
  readonly username: string;
  readonly secret: string;
}

// What helpers print when they have nothing.
const NOT_FOUND = /credentials not found/i;

/** Undefined when the helper has nothing for this registry. */
export async function getFromHelper(
  name: string,
  key: string,
  io: Io,
): Promise<HelperCredentials | undefined> {
  const { code, stdout } = await runHelper(name, 'get', key, io);
  if (code !== 0) {
    if (NOT_FOUND.test(stdout)) return undefined;
    throw failed(name, 'get', stdout);
  }
  try {
    const { Username: username, Secret: secret } = JSON.parse(stdout);
    if (typeof username === 'string' && typeof secret === 'string') return { username, secret };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw failed(name, 'get', 'its answer is not {"Username": …, "Secret": …}');
}

export async function storeWithHelper(
  name: string,
  { key, username, secret }: HelperCredentials & { readonly key: string },
  io: Io,
): Promise<void> {
  const request = JSON.stringify({ ServerURL: key, Username: username, Secret: secret });
  const { code, stdout } = await runHelper(name, 'store', request, io);
  if (code !== 0) throw failed(name, 'store', stdout);
}

/** Having nothing to erase is success. */
export async function eraseWithHelper(name: string, key: string, io: Io): Promise<void> {
  const { code, stdout } = await runHelper(name, 'erase', key, io);
  if (code !== 0 && !NOT_FOUND.test(stdout)) throw failed(name, 'erase', stdout);
}

function failed(name: string, action: string, reason: string): SwarmError {
  return new SwarmError(
    'failed-precondition',
    `docker-credential-${name} ${action} failed: ${reason.trim() || 'it says nothing'}`,
  );
}

async function runHelper(
  name: string,
  action: 'get' | 'store' | 'erase',
  input: string,
  { environment }: Io,
): Promise<{ code: number | null; stdout: string }> {
  const child = spawn(`docker-credential-${name}`, [action], {
    env: { ...environment },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('error', (error) =>
      reject(
        new SwarmError(
          'failed-precondition',
          `docker-credential-${name} cannot be run: ${messageOf(error)}`,
          {
            hint: 'The Docker configuration names it: install it, or take "credsStore" out of the file.',
          },
        ),
      ),
    );
    child.on('close', resolve);
  });
  // It may end without reading.
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const [code, stdout] = await Promise.all([ended, text(child.stdout)]);
  return { code, stdout };
}
