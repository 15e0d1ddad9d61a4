#!/usr/bin/env -S node --

// The command line's program: gives the real world to `cli/`.

import { enableCompileCache } from 'node:module';
import type { Io } from '../cli/io.ts';

// Half of the start-up time is compiling what did not change since the last call.
enableCompileCache();

const { runCli } = await import('../cli/main.ts');
const { env, stdin, stdout, stderr } = process;

/** Resolves when there is room for more. */
function write(stream: NodeJS.WriteStream, data: string | Uint8Array): Promise<void> {
  if (stream.write(data)) return Promise.resolve();
  return new Promise((resolve) => stream.once('drain', resolve));
}

function catchInterrupt(): AbortSignal {
  const interrupted = new AbortController();
  process.once('SIGINT', () => interrupted.abort());
  return interrupted.signal;
}

// Those that end a program by default, and that may be meant for what it talks to.
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

function onSignal(listener: (name: string) => void): () => void {
  for (const name of SIGNALS) process.on(name, listener);
  return () => {
    for (const name of SIGNALS) process.off(name, listener);
  };
}

function onResize(listener: () => void): () => void {
  stdout.on('resize', listener);
  return () => void stdout.off('resize', listener);
}

async function readSecret(prompt: string): Promise<string | undefined> {
  if (!stdin.isTTY) return undefined;
  const { readUnseen } = await import('../cli/secret-input.ts');
  return readUnseen(stdin, stderr, prompt);
}

const io: Io = {
  environment: env,
  workdir: process.cwd(),
  get stdin() {
    return stdin;
  },
  readSecret,
  keyboard: stdin.isTTY ? { setRaw: (isRaw) => void stdin.setRawMode(isRaw) } : undefined,
  isTerminal: stdout.isTTY === true,
  get columns() {
    return stdout.columns || 80;
  },
  get rows() {
    return stdout.rows || 24;
  },
  isUtf8: /utf-?8/i.test(env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || ''),
  out: (data) => write(stdout, data),
  err: (data) => void stderr.write(data),
  errOut: (data) => write(stderr, data),
  nowMs: Date.now,
  catchInterrupt,
  onSignal,
  onResize,
};

// A reader that goes away ("| head") ends the program quietly.
stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
process.exitCode = await runCli(process.argv.slice(2), io);
// A read that nobody waits for any more would keep the program alive.
stdin.destroy();
