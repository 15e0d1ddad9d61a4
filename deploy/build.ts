// Bundles the two programs into dist/ and writes the commands that start them on the pinned Node: `npm run build`.

import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';

const root = path.join(import.meta.dirname, '..');
const dist = path.join(root, 'dist');

// Bundled CommonJS packages ask for `require`, which ES modules do not have.
const BANNER =
  "import { createRequire as tsswarmCreateRequire } from 'node:module'; const require = tsswarmCreateRequire(import.meta.url);";

/**
 * How each program is started. The daemon's heap is small: a large young generation, and an arena of malloc for every
 * thread, only raise what an idle node holds.
 */
const COMMANDS: Record<string, string> = {
  tsswarm: `exec ${process.execPath}`,
  tsswarmd: `MALLOC_ARENA_MAX=1 exec ${process.execPath} --max-semi-space-size=1`,
};

rmSync(dist, { recursive: true, force: true });
await build({
  entryPoints: Object.keys(COMMANDS).map((name) => path.join(root, 'bin', `${name}.ts`)),
  outdir: dist,
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  splitting: true,
  // koffi finds its native part, etcd3 its protocol, beside their own files.
  external: ['koffi', 'etcd3'],
  banner: { js: BANNER },
  legalComments: 'none',
  // Names stay as they are, for stack traces and profiles. esbuild's way to keep them beside shorter ones costs a call for every
  // function that is made at run time, a tenth of a busy manager's time.
  minifyWhitespace: true,
  minifySyntax: true,
  logLevel: 'warning',
});

mkdirSync(path.join(dist, 'bin'));
for (const [name, start] of Object.entries(COMMANDS)) {
  const command = path.join(dist, 'bin', name);
  // Without "--" Node takes an --env-file behind the program's name for its own.
  writeFileSync(
    command,
    `#!/bin/sh
${start} -- ${path.join(dist, `${name}.js`)} "$@"
`,
  );
  chmodSync(command, 0o755);
}
