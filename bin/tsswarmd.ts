#!/usr/bin/env node

// The daemon's program: reads the configuration, then runs the daemon, or one of the roles that it starts itself.

import { messageOf, SwarmError } from '../core/errors.ts';
import { VERSION } from '../core/version.ts';
import { DEFAULT_CONFIG_FILE, describeOptions, loadConfig } from '../node/config.ts';
import { setLogLevel } from '../rpc/logger.ts';

const USAGE = `Usage: tsswarmd [OPTIONS]            run the daemon
       tsswarmd teardown [OPTIONS]   with the daemon stopped: remove containers, networks and mounts
       tsswarmd log verify|dump DIR  with the manager stopped: look at its log ("tsswarmd log --help")
       tsswarmd --print-config       show the configuration and where each value came from

Options (also TSSWARM_NAME in the environment, or "name: value" in the configuration file):
  --config              Configuration file (default ${DEFAULT_CONFIG_FILE})
${describeOptions()}
`;

/** `--name value` and `--name=value`; the rest are words. */
function readArguments(argv: readonly string[]): { flags: Map<string, string>; words: string[] } {
  const flags = new Map<string, string>();
  const words: string[] = [];
  for (let position = 0; position < argv.length; position++) {
    const [, name, value] = /^--([a-z-]+)(?:=(.*))?$/s.exec(argv[position] ?? '') ?? [];
    if (name === undefined) words.push(argv[position] ?? '');
    else if (['help', 'version', 'print-config'].includes(name)) words.push(name);
    else flags.set(name, value ?? argv[++position] ?? '');
  }
  return { flags, words };
}

/** As the configuration file has it. */
function shown(value: unknown): string {
  const isMap = typeof value === 'object' && !Array.isArray(value);
  return isMap ? JSON.stringify(value) : String(value);
}

async function main(): Promise<void> {
  const { flags, words } = readArguments(process.argv.slice(2));
  const [command = 'run', ...extra] = words;
  if (command === 'manager-process')
    return (await import('../node/manager-process.ts')).runManagerProcess(process.stdin);
  if (command === 'certificate-process')
    return (await import('../node/certificate-process.ts')).runCertificateProcess(
      process.stdin,
      process.stdout,
    );
  if (command === 'log') {
    const { LOG_USAGE, runLogCommand } = await import('../node/log-command.ts');
    if (extra.length === 0 || extra.includes('help')) return void process.stdout.write(LOG_USAGE);
    process.exitCode = await runLogCommand(extra, flags, (line) => process.stdout.write(`${line}\n`));
    return;
  }
  if (command === 'help') return void process.stdout.write(USAGE);
  if (command === 'version') return void process.stdout.write(`tsswarmd version ${VERSION}\n`);
  const configFile = flags.get('config') ?? DEFAULT_CONFIG_FILE;
  flags.delete('config');
  const { config, sources } = loadConfig({ flags, environment: process.env, configFile });
  setLogLevel(config['log-level']);
  if (command === 'print-config') {
    for (const [name, value] of Object.entries(config))
      process.stdout.write(`${name}: ${shown(value)}  # ${sources[name as keyof typeof sources]}\n`);
    return;
  }
  const { runDaemon, teardown } = await import('../node/run.ts');
  if (command === 'run' && extra.length === 0) return runDaemon(config);
  if (command === 'teardown' && extra.length === 0) return teardown(config);
  throw new SwarmError('invalid-argument', `unknown command "${words.join(' ')}"`, { hint: USAGE });
}

main().catch((error: unknown) => {
  const hint = error instanceof SwarmError && error.hint !== undefined ? `\n${error.hint}` : '';
  process.stderr.write(`tsswarmd: ${messageOf(error)}${hint}\n`);
  process.exitCode = 1;
});
