// The profiles that `--security-opt seccomp=FILE` names: read where the command is typed, and carried by the service.

import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { invalidField, messageOf } from '../../core/errors.ts';
import type { Io } from '../io.ts';
import { type SecurityWord, seccompFiles } from './container-values.ts';

/** Contents by the name that was written. */
export async function readSeccompProfiles(
  words: readonly SecurityWord[],
  { workdir }: Pick<Io, 'workdir'>,
): Promise<ReadonlyMap<string, string>> {
  const profiles = new Map<string, string>();
  for (const file of seccompFiles(words)) {
    const text = await readFile(path.resolve(workdir, file), 'utf8').catch((error: unknown) => {
      throw invalidField('security-opt', `seccomp: ${messageOf(error)}`);
    });
    profiles.set(file, compact(text));
  }
  return profiles;
}

/** Without blanks; what is no JSON is refused later, with the reason. */
function compact(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text));
  } catch {
    return text;
  }
}
