// `--platform` of the commands of images.

import { textFlag } from './flag.ts';

/** Its value goes to the node as it is, which refuses what is none. */
export function platformFlag(help: string) {
  return textFlag(`${help} (os/arch[/variant])`);
}
