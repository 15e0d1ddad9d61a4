// One line typed at a terminal that does not show it.

import type { Writable } from 'node:stream';
import type { ReadStream } from 'node:tty';
import { SwarmError } from '../core/errors.ts';

const INTERRUPT = '\u0003';
const END_OF_INPUT = '\u0004';
const ERASE: readonly string[] = ['\b', '\u007f'];
const ENTER: readonly string[] = ['\r', '\n', END_OF_INPUT];

/** Throws `cancelled` on ^C: in raw mode that is a letter like any other. */
export function readUnseen(input: ReadStream, output: Writable, prompt: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let line = '';
  const onData = (data: Buffer) => {
    for (const letter of data.toString()) {
      if (letter === INTERRUPT) return reject(new SwarmError('cancelled', 'nothing was entered'));
      if (ENTER.includes(letter)) return resolve(line);
      line = ERASE.includes(letter) ? line.slice(0, -1) : line + letter;
    }
  };
  const onEnd = () => resolve(line);
  // The terminal is silent before anybody is asked to type.
  input.setRawMode(true);
  output.write(prompt);
  input.on('data', onData).on('end', onEnd);
  return promise.finally(() => {
    input.off('data', onData).off('end', onEnd).pause();
    input.setRawMode(false);
    output.write('\n');
  });
}
