#!/usr/bin/env -S node --

// The command line's program: gives the real world to `cli/`.

import { enableCompileCache } from 'node:module';
import type { Io } from '../cli/io.ts';

// Half of the start-up time is compiling what did not change since the last call.
enableCompileCache();

const { runCli } = await import('../cli/main.ts');
const { env, stdin, stdout, stderr } = process;

function writeOut(data: string | Uint8Array): Promise<void> {
  if (stdout.write(data)) return Promise.resolve();
  return new Promise((resolve) => stdout.once('drain', resolve));
}

function catchInterrupt(): AbortSignal {
  const interrupted = new AbortController();
  process.once('SIGINT', () => interrupted.abort());
  return interrupted.signal;
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
  isTerminal: stdout.isTTY === true,
  get columns() {
    return stdout.columns || 80;
  },
  isUtf8: /utf-?8/i.test(env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || ''),
  out: writeOut,
  err: (data) => void stderr.write(data),
  nowMs: Date.now,
  catchInterrupt,
};

// A reader that goes away ("| head") ends the program quietly.
stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
process.exitCode = await runCli(process.argv.slice(2), io);
