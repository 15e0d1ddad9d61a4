// Turns "user[:group]" into numbers by an image's passwd and group files, by the rules that Docker and runc share. Pure.

import { SwarmError } from '../../../core/errors.ts';
import type { ProcessUser } from './spec.ts';

export interface AccountFiles {
  /** Contents of /etc/passwd; empty when the image has none. */
  readonly passwd: string;
  readonly group: string;
}

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

const ID_MAX = 2 ** 31 - 1;

function lines(text: string): string[][] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}

function parsePasswd(text: string): PasswdEntry[] {
  return lines(text).map(([name = '', , uid, gid]) => ({ name, uid: Number(uid), gid: Number(gid) }));
}

function parseGroup(text: string): GroupEntry[] {
  return lines(text).map(([name = '', , gid, members = '']) => ({
    name,
    gid: Number(gid),
    members: members.split(','),
  }));
}

/** The number a text is, or undefined when it is a name. */
function asId(text: string, what: string): number | undefined {
  if (!/^[+-]?\d+$/.test(text)) return undefined;
  const id = Number(text);
  if (id < 0 || id > ID_MAX)
    throw new SwarmError('invalid-argument', `${what} ${text} is not between 0 and ${ID_MAX}`);
  return id;
}

function unknown(kind: 'user' | 'group', name: string): SwarmError {
  const file = kind === 'user' ? 'passwd' : 'group';
  return new SwarmError(
    'invalid-argument',
    `unable to find ${kind} ${name}: no matching entries in ${file} file`,
  );
}

/** Looks up the user, its group and its further groups. Throws `invalid-argument` that names who is unknown. */
export function resolveUser(user: string, extraGroups: readonly string[], files: AccountFiles): ProcessUser {
  const [userPart = '', groupPart = ''] = user.split(':', 2);
  const groups = parseGroup(files.group);
  const wantedUid = userPart === '' ? 0 : asId(userPart, 'user');
  const entry = parsePasswd(files.passwd).find(
    ({ name, uid }) => uid === wantedUid || (userPart !== '' && name === userPart),
  );
  const uid = entry?.uid ?? wantedUid;
  if (uid === undefined || Number.isNaN(uid)) throw unknown('user', userPart);

  const gid = groupPart === '' ? (entry?.gid ?? 0) : groupId(groupPart, groups);
  // With a group named, the user's memberships do not count.
  const memberships =
    groupPart === '' && entry !== undefined
      ? groups.filter(({ members }) => members.includes(entry.name)).map((group) => group.gid)
      : [];
  const extra = extraGroups.map((group) => groupId(group, groups));
  return { uid, gid, additionalGids: [...new Set([gid, ...memberships, ...extra])] };
}

function groupId(text: string, groups: readonly GroupEntry[]): number {
  const wanted = asId(text, 'group');
  const gid = groups.find((group) => group.name === text || group.gid === wanted)?.gid ?? wanted;
  if (gid === undefined || Number.isNaN(gid)) throw unknown('group', text);
  return gid;
}
