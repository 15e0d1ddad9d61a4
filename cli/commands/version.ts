// `tsswarm version`: of the client always, of the daemon when it answers.

import process from 'node:process';
import { hasCode, type SwarmError } from '../../core/errors.ts';
import { VERSION } from '../../core/version.ts';
import { defineCommand } from '../command.ts';
import { textFlag } from '../flags/flag.ts';
import { formatInspect } from '../format/inspect-format.ts';

export const command = defineCommand({
  usage: '[OPTIONS]',
  args: { min: 0, max: 0 },
  flags: { format: textFlag('Format output: "json" or a Go TEMPLATE', { shorthand: 'f' }) },
  async run({ flags, io, connection }) {
    const client = {
      Version: VERSION,
      NodeVersion: process.versions.node,
      Os: process.platform,
      Arch: process.arch === 'x64' ? 'amd64' : process.arch,
    };
    let failure: SwarmError | undefined;
    const info = await (await connection.node()).info({}).catch((error: unknown) => {
      if (!hasCode(error, 'unavailable')) throw error;
      failure = error;
      return undefined;
    });
    const server = info && {
      Version: info.version,
      Containerd: info.containerdVersion,
      Runtime: info.runtimeName,
      Os: info.description.platform.os,
      Arch: info.description.platform.architecture,
      KernelVersion: info.description.kernel,
    };
    if (flags.format === 'json')
      await io.out(`${JSON.stringify({ Client: client, Server: server ?? null })}\n`);
    else if (flags.format !== undefined)
      await io.out(formatInspect([{ Client: client, Server: server }], flags.format));
    else {
      await io.out(section('Client: tsswarm', client, ''));
      if (server !== undefined) await io.out(section('Server: tsswarmd', server, '\n'));
    }
    if (failure !== undefined) throw await connection.diagnose(failure);
  },
});

function section(title: string, facts: Readonly<Record<string, string>>, before: string): string {
  const titles: Readonly<Record<string, string>> = {
    NodeVersion: 'Node version',
    KernelVersion: 'Kernel version',
    Os: 'OS',
  };
  const lines = Object.entries(facts).map(
    ([key, value]) => ` ${`${titles[key] ?? key}:`.padEnd(18)}${value}`,
  );
  return `${before}${title}\n${lines.join('\n')}\n`;
}
