// The first line of what is typed or piped in.

import type { Io } from './io.ts';

/** Without its end; empty when there is nothing. */
export async function readLine({ stdin }: Pick<Io, 'stdin'>): Promise<string> {
  let text = '';
  const decoder = new TextDecoder();
  for await (const data of stdin) {
    text += decoder.decode(data, { stream: true });
    if (text.includes('\n')) break;
  }
  return text.split('\n')[0] ?? '';
}
