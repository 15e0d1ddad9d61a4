// `image tag`: another name for an image of this node.

import { defineCommand } from '../../command.ts';

export const command = defineCommand({
  usage: 'SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]',
  args: { min: 2, max: 2 },
  flags: {},
  completes: 'image',
  async run({ args: [source = '', target = ''], connection }) {
    await (await connection.node()).tagImage({ source, target });
  },
});
