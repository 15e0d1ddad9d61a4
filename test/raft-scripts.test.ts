// The stories of test/cases/raft, told by the real core. TSSWARM_REWRITE=1 writes down what they print now: read the
// difference before you keep it.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { runScript } from './sim/script.ts';

const folder = path.join(import.meta.dirname, 'cases/raft');
const isRewriting = process.env['TSSWARM_REWRITE'] === '1';

for (const name of readdirSync(folder).sort())
  test(`the story of ${path.parse(name).name.replaceAll('-', ' ')}`, () => {
    const file = path.join(folder, name);
    const text = readFileSync(file, 'utf8');

    const told = runScript(text);

    if (isRewriting) writeFileSync(file, told);
    else assert.equal(told, text);
  });
