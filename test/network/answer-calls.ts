// The other end of CallableProgram: answers each line of the input, {method, argument}, with {value} or {code, message}.

import { createInterface } from 'node:readline';
import { toSwarmError } from '../../core/errors.ts';

/** Prints "ready" first; ends with the input. */
export async function answerCalls(
  methods: Record<string, (argument: never) => Promise<unknown>>,
): Promise<void> {
  console.log('ready');
  for await (const line of createInterface(process.stdin)) {
    const { method, argument } = JSON.parse(line) as { method: string; argument: never };
    try {
      console.log(JSON.stringify({ value: await methods[method]!(argument) }));
    } catch (error) {
      const { code, message } = toSwarmError(error);
      console.log(JSON.stringify({ code, message }));
    }
  }
  process.exit();
}
