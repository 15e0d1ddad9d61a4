// A process with one planted bug: runs seeds until one of them fails, then the scripts, and tells what noticed it.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { mutantOf, plant } from './mutants.ts';

const [name = '', seeds = '', steps = ''] = process.argv.slice(2);
const mutant = mutantOf(name);
plant(mutant);
const { runSeed } = await import('./core-run.ts');
const { runScript } = await import('./script.ts');
let kill: { rule: string; message: string } | undefined;
let seed = (mutant.firstSeed ?? 1) - 1;
const last = mutant.isScripted ? seed : seed + Number(seeds);
while (kill === undefined && seed < last) kill = runSeed(++seed, Number(steps));
kill ??= differingScript();
process.stdout.write(`${JSON.stringify({ name, rule: kill?.rule, message: kill?.message, seed })}\n`);

function differingScript(): { rule: string; message: string } | undefined {
  const folder = path.join(import.meta.dirname, '../cases/raft');
  for (const file of readdirSync(folder)) {
    const text = readFileSync(path.join(folder, file), 'utf8');
    try {
      if (runScript(text) !== text) return { rule: 'script', message: file };
    } catch (error) {
      return { rule: 'script', message: `${file}: ${error}` };
    }
  }
  return undefined;
}
