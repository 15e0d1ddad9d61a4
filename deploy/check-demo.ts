// Asks every task of the demonstration over HTTP and prints what answered; exits 1 when one does not.
// Usage: check-demo.ts COMMAND SERVICE

import { execFileSync } from 'node:child_process';
import { messageOf } from '../core/errors.ts';

const TIMEOUT_MS = 5_000;
const ATTEMPTS = 20;
const PAUSE_MS = 250;

const [command = 'tsswarm', service = 'demo'] = process.argv.slice(2);
const format = '{{.Name}} {{.Ports}}';
const lines = execFileSync(
  command,
  ['service', 'ps', service, '--filter', 'desired-state=running', '--format', format],
  {
    encoding: 'utf8',
  },
).trim();

/** A task that runs may still be opening its port. */
async function ask(url: string): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      return `${response.status} ${(await response.text()).trim()}`;
    } catch (error) {
      if (attempt === ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

for (const line of lines.split('\n')) {
  const [, name = '', port = ''] = /^(\S+) \*:(\d+)->/.exec(line) ?? [];
  const url = `http://127.0.0.1:${port}/`;
  try {
    if (port === '') throw new Error(`no published port in "${line}"`);
    process.stdout.write(`  ${name} answers on ${url}: ${await ask(url)}\n`);
  } catch (error) {
    process.stderr.write(`  ${name || line} does not answer on ${url}: ${messageOf(error)}\n`);
    process.exitCode = 1;
  }
}
