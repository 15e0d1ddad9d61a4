// The house rules, checked on the source text: which way imports run, how long things get, what must not be there.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { VERSION } from '../core/version.ts';

const root = path.join(import.meta.dirname, '..');
const FOLDERS = ['bin', 'core', 'proto', 'rpc', 'manager', 'agent', 'node', 'cli', 'deploy', 'bench', 'test'];
const LINES_MAX = 500;
const FUNCTION_LINES_MAX = 70;

/** Top folders that files of a folder may import from: downhill only. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  core: ['core'],
  proto: ['proto', 'core'],
  rpc: ['rpc', 'proto', 'core'],
  manager: ['manager', 'rpc', 'proto', 'core'],
  agent: ['agent', 'rpc', 'proto', 'core'],
  cli: ['cli', 'rpc', 'proto', 'core'],
  node: ['node', 'manager', 'agent', 'rpc', 'proto', 'core'],
  bin: ['node', 'cli', 'rpc', 'core'],
};
const LOOPS = ['allocator', 'orchestrator', 'scheduler', 'dispatcher', 'control'];
/** Inside agent/, only these may know several of its parts. */
const AGENT_PARTS = ['engine', 'network', 'secrets', 'session', 'worker'];

interface SourceFile {
  readonly name: string;
  readonly text: string;
  readonly isTest: boolean;
}

function sourceFiles(): SourceFile[] {
  return FOLDERS.flatMap((folder) =>
    readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts') && !name.includes('generated'))
      .map((name) => path.join(folder, name)),
  ).map((name) => ({
    name,
    text: readFileSync(path.join(root, name), 'utf8'),
    isTest: name.startsWith('test/') || name.endsWith('.test.ts'),
  }));
}

const files = sourceFiles();

/** Project files that a file imports, as paths from the root; types count as well. */
function importsOf({ name, text }: SourceFile): string[] {
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map(([, specifier]) =>
    path.join(path.dirname(name), specifier ?? ''),
  );
}

function violations(check: (file: SourceFile) => string[]): string[] {
  return files.flatMap((file) => check(file).map((problem) => `${file.name}: ${problem}`));
}

test('there are sources to check', () => {
  assert.ok(files.length > 50);
  assert.ok(files.some((file) => importsOf(file).length > 3));
});

test('imports run downhill', () => {
  const found = violations((file) => {
    const allowed = MAY_IMPORT[file.name.split('/')[0] ?? ''];
    if (file.isTest || allowed === undefined) return [];
    const isOwn = (target: string) => allowed.some((folder) => target.startsWith(`${folder}/`));
    return importsOf(file).filter((target) => !isOwn(target));
  });
  assert.deepEqual(found, []);
});

test('control loops meet only in the store', () => {
  const found = violations((file) => {
    const [top, loop] = file.name.split('/');
    if (top !== 'manager' || !LOOPS.includes(loop ?? '')) return [];
    return importsOf(file).filter((target) => {
      const [targetTop, other = ''] = target.split('/');
      return targetTop === 'manager' && LOOPS.includes(other) && other !== loop;
    });
  });
  assert.deepEqual(found, []);
});

test('engine, network and secrets do not know each other, nor anything of clusters', () => {
  const found = violations((file) => {
    const [top, part] = file.name.split('/');
    if (file.isTest || top !== 'agent' || !['engine', 'network', 'secrets'].includes(part ?? '')) return [];
    return importsOf(file).filter((target) => {
      const [targetTop, other = ''] = target.split('/');
      return targetTop === 'agent' && AGENT_PARTS.includes(other) && other !== part;
    });
  });
  assert.deepEqual(found, []);
});

test('what is simulated takes time and chance as parameters', () => {
  const simulated = /^(manager|agent\/(session|worker))\//;
  const banned = /\b(Date\.now|Math\.random|setTimeout|setInterval|new Date\(\))/;
  // The manager's composition root hands the real ones down; logs and snapshots measure with performance.now.
  const found = violations(({ name, text, isTest }) =>
    simulated.test(name) && !isTest ? (banned.exec(text)?.slice(0, 1) ?? []) : [],
  );
  assert.deepEqual(found, []);
});

test('files and functions stay short', () => {
  const found = violations(({ text, isTest }) => {
    const lines = text.split('\n');
    const problems = lines.length > LINES_MAX && !isTest ? [`${lines.length} lines`] : [];
    let start = -1;
    for (const [index, line] of lines.entries()) {
      if (/^(export )?(async )?function\b|^ {2}(static |async |\*|#)*[\w#]+\(.*\{$/.test(line)) start = index;
      if (start >= 0 && /^( {2})?\}$/.test(line)) {
        if (index - start > FUNCTION_LINES_MAX && !isTest)
          problems.push(`function at line ${start + 1} has ${index - start} lines`);
        start = -1;
      }
    }
    return problems;
  });
  assert.deepEqual(found, []);
});

test('nothing is left that should not land', () => {
  const found = violations(({ name, text }) => {
    if (name === 'test/tidy.test.ts') return [];
    const words = [
      /\bTODO\b/,
      /\bFIXME\b/,
      /\bXXX:/,
      /\bdebugger\b/,
      /@ts-ignore/,
      /\bas any\b/,
      /\.only\(/,
      /\/work\//,
    ];
    return words.filter((word) => word.test(text)).map(String);
  });
  assert.deepEqual(found, []);
});

test('the environment is read in bin/ only', () => {
  const found = violations(({ name, text, isTest }) =>
    // PATH is the exception: programs are looked up in it.
    /process\.env\b(?!\['PATH'\])/.test(text) && !isTest && !/^(bin|bench|deploy)\//.test(name)
      ? ['process.env']
      : [],
  );
  assert.deepEqual(found, []);
});

test('every source file says what it is for', () => {
  const found = violations(({ text, isTest }) =>
    isTest || /^(#!.*\n\s*)?\/(\/|\*\*) /.test(text) ? [] : ['no head comment'],
  );
  assert.deepEqual(found, []);
});

test('the commands of the README exist', () => {
  const readme = readFileSync(path.join(root, 'README.md'), 'utf8');
  const scripts = Object.keys(
    (JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { scripts: object }).scripts,
  );
  const named = [...readme.matchAll(/npm (?:run )?([a-z]+)/g)].map(([, name]) => name ?? '');
  assert.ok(named.includes('start') && named.includes('test'));
  assert.deepEqual(
    named.filter((name) => ![...scripts, 'ci', 'install'].includes(name)),
    [],
  );
});

test('the version is said once', () => {
  const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    version: string;
  };
  assert.equal(VERSION, version);
});
