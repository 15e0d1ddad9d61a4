// User namespaces with network namespaces that belong to them. Only a process of one thread can make a user namespace, and
// only who made a network namespace inside one has rights over it: a program holds both until they are pinned.

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { messageOf, SwarmError } from '../../core/errors.ts';
import { pinNamespace } from './namespace.ts';

/** Ids in a container: those that images count on, nobody's 65534 included. */
export const IDS_PER_NAMESPACE = 65_536;

export interface NamespacePins {
  readonly user: string;
  /** Of the network namespace. */
  readonly network: string;
}

/** Users and groups `firstId` and following of the machine are 0 and following inside. Nothing may be where the pins go. */
export async function createUserNamespace(firstId: number, pins: NamespacePins): Promise<void> {
  // cat ends when this process does.
  const holder = spawn('unshare', ['--user', '--net', 'cat'], { stdio: 'pipe' });
  const ended = new Promise((resolve) => holder.once('close', resolve));
  try {
    await untilMade(holder);
    const own = `/proc/${holder.pid}`;
    for (const map of ['uid_map', 'gid_map'])
      writeFileSync(`${own}/${map}`, `0 ${firstId} ${IDS_PER_NAMESPACE}`);
    pinNamespace(`${own}/ns/user`, pins.user);
    pinNamespace(`${own}/ns/net`, pins.network);
  } finally {
    holder.kill('SIGKILL');
    await ended;
  }
}

/** It answers as soon as it is inside. */
async function untilMade(holder: ChildProcessWithoutNullStreams): Promise<void> {
  let complaint = '';
  holder.stderr.on('data', (text) => {
    complaint += text;
  });
  // It may have ended already.
  holder.stdin.on('error', () => {});
  holder.stdin.write('\n');
  const answered = once(holder.stdout, 'data').then(() => true);
  const closed = once(holder, 'close').then(
    () => false,
    (error) => {
      complaint = messageOf(error);
      return false;
    },
  );
  if (await Promise.race([answered, closed])) return;
  throw new SwarmError('failed-precondition', `cannot make a user namespace: ${complaint.trim()}`, {
    hint: 'The machine may forbid them: see its sysctl user.max_user_namespaces.',
  });
}
