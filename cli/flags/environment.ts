// Environment variables from flags and files.

import { readFile } from 'node:fs/promises';
import { invalidField, messageOf } from '../../core/errors.ts';
import { splitKeyValue } from './words.ts';

/** Lines of all files of `--env-file`, in order. */
export async function readEnvLines(files: readonly string[]): Promise<string[]> {
  const lines: string[] = [];
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch((error: unknown) => {
      throw invalidField('env-file', messageOf(error));
    });
    lines.push(...text.split(/\r?\n/));
  }
  return lines;
}

/** "NAME" alone takes the caller's value and is left out when the caller has none. */
export function readEnv(
  entries: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): string[] {
  return entries.flatMap((entry) => {
    if (entry.includes('=') || entry === '') return [entry];
    const value = environment[entry];
    return value === undefined ? [] : [`${entry}=${value}`];
  });
}

/** The entries of files of environment variables. Throws `invalid-argument`. */
export function readEnvFile(lines: readonly string[]): string[] {
  const entries = lines
    .map((line) => line.trimStart())
    .filter((line) => line !== '' && !line.startsWith('#'));
  for (const entry of entries) {
    const { key } = splitKeyValue(entry);
    if (key === '' || /\s/.test(key)) throw invalidField('env-file', `"${entry}" must be NAME=VALUE`);
  }
  return entries;
}
