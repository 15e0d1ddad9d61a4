// `cp`: files out of a running task and into it, as an archive that a `tar` at each end makes and reads. Nothing of an archive is
// read by us: it may come from a container that wants to harm.

import { stat } from 'node:fs/promises';
import path from 'node:path';
import { SwarmError } from '../../core/errors.ts';
import { type ExecCommand, emptyExecCommand } from '../../proto/generated/reach.ts';
import { defineCommand } from '../command.ts';
import type { Control } from '../connection.ts';
import { switchFlag } from '../flags/flag.ts';
import type { Io } from '../io.ts';
import { formatDecimalSize } from '../output/human.ts';
import { exitCodeOf } from '../reach/exit-code.ts';
import { localTar } from '../reach/local-tar.ts';
import { talk } from '../reach/talk.ts';
import { UsageError } from '../usage-error.ts';

interface Place {
  /** Empty: this machine. */
  readonly task: string;
  readonly path: string;
}

interface Copy {
  readonly control: Control;
  readonly io: Io;
  /** Owners are kept. */
  readonly isArchive: boolean;
  readonly followsLinks: boolean;
}

const STREAM = '-';
const NO_PROGRAM = 127;

export const command = defineCommand({
  usage: '[OPTIONS] TASK:SRC_PATH DEST_PATH|- | SRC_PATH|- TASK:DEST_PATH',
  args: { min: 2, max: 2 },
  flags: {
    archive: switchFlag('Archive mode (copy all uid/gid information)', { shorthand: 'a' }),
    'follow-link': switchFlag('Always follow symbol link in SRC_PATH', { shorthand: 'L' }),
    quiet: switchFlag('Suppress progress output during copy', { shorthand: 'q' }),
  },
  completes: 'file',
  async run({ flags, args: [from = '', to = ''], io, connection }) {
    const [source, target] = [parsePlace(from), parsePlace(to)];
    if ((source.task === '') === (target.task === ''))
      throw new UsageError('one of the two places must be TASK:PATH, the other one of this machine');
    const copy = {
      control: await connection.control(),
      io,
      isArchive: flags.archive ?? false,
      followsLinks: flags['follow-link'] ?? false,
    };
    const bytes =
      source.task === '' ? await copyIn(copy, source.path, target) : await copyOut(copy, source, target.path);
    if (!flags.quiet && target.path !== STREAM)
      io.err(`Successfully copied ${formatDecimalSize(bytes)} to ${to}\n`);
    return 0;
  },
});

/** "TASK:PATH"; what begins with "/" or "." is of this machine. */
function parsePlace(text: string): Place {
  const match = /^([^/.:][^/:]*):(.+)$/s.exec(text);
  return match === null ? { task: '', path: text } : { task: match[1] ?? '', path: match[2] ?? '' };
}

async function copyOut(copy: Copy, source: Place, target: string): Promise<number> {
  const { isArchive, followsLinks, io } = copy;
  const { directory, name } = split(source.path);
  const pack = ['tar', '-c', ...(followsLinks ? ['-h'] : []), '-f', '-', '-C', directory, '--', name];
  if (target === STREAM) return run(copy, source, pack, { take: (data) => io.out(data) });
  const own = isArchive ? ['--same-owner', '-p'] : ['--no-same-owner'];
  const place = (await isDirectory(path.resolve(io.workdir, target)))
    ? { directory: target, name }
    : split(path.resolve(io.workdir, target));
  const tar = localTar(io.workdir, [
    '-x',
    ...own,
    '-f',
    '-',
    '-C',
    place.directory,
    ...renaming(name, place.name),
  ]);
  return tar.whole(run(copy, source, pack, { take: tar.write }));
}

async function copyIn(copy: Copy, source: string, target: Place): Promise<number> {
  const { io, isArchive, followsLinks } = copy;
  const unpack = (directory: string) => ['tar', '-x', '-f', '-', '-C', directory];
  if (source === STREAM) return run(copy, target, unpack(target.path), { stdin: io.stdin });
  const { directory, name } = split(path.resolve(io.workdir, source) + (source.endsWith('/.') ? '/.' : ''));
  const place = (await isRemoteDirectory(copy, target))
    ? { directory: target.path, name }
    : split(target.path);
  const own = isArchive ? [] : ['--owner=0', '--group=0'];
  const links = followsLinks ? ['-h'] : [];
  const renamed = renaming(name, place.name);
  const tar = localTar(io.workdir, [
    '-c',
    ...own,
    ...links,
    '-f',
    '-',
    '-C',
    directory,
    ...renamed,
    '--',
    name,
  ]);
  return tar.whole(run(copy, target, unpack(place.directory), { stdin: tar.output }));
}

/** The directory in which something lies, and its name there; "." for what a directory has in it. */
function split(place: string): { readonly directory: string; readonly name: string } {
  if (place.endsWith('/.')) return { directory: place.slice(0, -1), name: '.' };
  const plain = place.replace(/\/+$/, '');
  return plain === ''
    ? { directory: '/', name: '.' }
    : { directory: path.dirname(plain), name: path.basename(plain) };
}

async function isDirectory(place: string): Promise<boolean> {
  const found = await stat(place).catch(() => undefined);
  return found?.isDirectory() ?? false;
}

async function isRemoteDirectory({ control, io }: Copy, { task, path: place }: Place): Promise<boolean> {
  const exec = { ...emptyExecCommand, command: ['test', '-d', place] };
  const quiet = { io, stdin: false, tty: false, sendsSignals: false, detachKeys: [] };
  return exitCodeOf(await talk(control, { task, exec }, quiet), io) === 0;
}

/** What GNU tar is to call a member, and all below it, instead. */
function renaming(name: string, instead: string): string[] {
  if (name === instead || name === '.' || instead === '.') return [];
  const pattern = name.replace(/[\\.*^$[\],]/g, '\\$&');
  const replacement = instead.replace(/[\\&,]/g, '\\$&');
  return [`--transform=flags=rSh;s,^${pattern}\\(/\\|$\\),${replacement}\\1,`];
}

interface Ends {
  readonly stdin?: AsyncIterable<Uint8Array>;
  readonly take?: (data: Uint8Array) => Promise<void>;
}

/** Runs a command in the task between these ends; returns how many bytes went through. */
async function run(copy: Copy, { task }: Place, words: readonly string[], ends: Ends): Promise<number> {
  let bytes = 0;
  const { take = async () => {}, stdin } = ends;
  const io: Io = {
    ...copy.io,
    stdin: counted(stdin, (count) => {
      bytes += count;
    }),
    out: async (data) => {
      bytes += data.length;
      await take(Buffer.from(data));
    },
  };
  const exec: ExecCommand = { ...emptyExecCommand, command: words, stdin: stdin !== undefined };
  const options = { io, stdin: stdin !== undefined, tty: false, sendsSignals: false, detachKeys: [] };
  const ended = await talk(copy.control, { task, exec }, options);
  if (ended?.exitCode === NO_PROGRAM)
    throw new SwarmError('failed-precondition', `${task}: there is no tar in its image, which cp needs`);
  const code = exitCodeOf(ended, io);
  if (code !== 0) throw new SwarmError('internal', `tar in ${task} has failed with ${code}`);
  return bytes;
}

async function* counted(
  source: AsyncIterable<Uint8Array> | undefined,
  count: (bytes: number) => void,
): AsyncIterable<Uint8Array> {
  for await (const data of source ?? []) {
    count(data.length);
    yield data;
  }
}
