// The process that a command becomes: the container's own, with what is asked for instead.

import type { ExecSessionRequest } from '../engine.ts';
import { readRootFiles } from '../images/image-files.ts';
import type { Machine } from '../machine.ts';
import { mergeEnvironment, type ProcessUser } from './spec.ts';
import { resolveUser } from './user.ts';

/** As in the OCI specification, as far as it matters here. */
export interface ExecProcess {
  readonly cwd?: string;
  readonly env?: readonly string[];
  readonly user?: ProcessUser;
  readonly capabilities?: {
    readonly bounding?: readonly string[];
    readonly permitted?: readonly string[];
    readonly effective?: readonly string[];
  };
}

interface Surroundings {
  /** The container's root directory, as this process can reach it. */
  readonly root: string;
  readonly machine: Pick<Machine, 'capabilities'>;
}

/** Throws `invalid-argument` for a user that the container does not know. */
export async function sessionProcess(
  own: ExecProcess,
  request: ExecSessionRequest,
  { root, machine }: Surroundings,
): Promise<ExecProcess> {
  const { command, env, workdir, tty, size } = request;
  const user = request.user === '' ? own.user : await userOf(request.user, root);
  const bounding = request.privileged ? machine.capabilities : (own.capabilities?.bounding ?? []);
  // Who is not root has none, unless it is to have all.
  const held = user?.uid === 0 || request.privileged ? bounding : [];
  return {
    ...own,
    terminal: tty,
    args: command,
    env: mergeEnvironment(tty ? ['TERM=xterm'] : [], own.env ?? [], env),
    cwd: workdir || (own.cwd ?? '/'),
    ...(user !== undefined && { user }),
    ...((request.user !== '' || request.privileged) && {
      capabilities: { bounding, permitted: held, effective: held },
    }),
    ...(tty && size !== undefined && { consoleSize: { width: size.columns, height: size.rows } }),
  } as ExecProcess;
}

/** By the container's files as they are now, not the image's. */
async function userOf(user: string, root: string): Promise<ProcessUser> {
  const [passwd = '', group = ''] = await readRootFiles(root, ['etc/passwd', 'etc/group']);
  return resolveUser(user, [], { passwd, group });
}
