// The common way of `inspect`: what is found goes to stdout, what is not to stderr, and the exit status tells.

import { formatInspect } from '../format/inspect-format.ts';
import type { Io } from '../io.ts';
import { forEachName, reportFailures } from '../names.ts';
import { UsageError } from '../usage-error.ts';

export interface InspectRequest<T> {
  readonly names: readonly string[];
  readonly find: (name: string) => Promise<T>;
  /** Docker's JSON. */
  readonly toShape: (object: T) => object;
  /** For people. */
  readonly toText: (object: T) => string;
  readonly flags: { readonly format: string | undefined; readonly pretty: boolean | undefined };
  readonly io: Io;
}

export async function inspectObjects<T>(request: InspectRequest<T>): Promise<number> {
  const { names, find, toShape, toText, flags, io } = request;
  if (flags.pretty && flags.format !== undefined)
    throw new UsageError('--format is incompatible with human friendly format (--pretty)');
  const found: T[] = [];
  const failures = await forEachName(names, async (name) => {
    found.push(await find(name));
  });
  if (flags.pretty) await io.out(found.map(toText).join('\n'));
  else await io.out(formatInspect(found.map(toShape), flags.format));
  return reportFailures(failures, io);
}
