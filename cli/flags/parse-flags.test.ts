import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../usage-error.ts';
import { countFlag, listFlag, switchFlag, textFlag, unsupportedFlags } from './flag.ts';
import { parseFlags } from './parse-flags.ts';

const table = {
  detach: switchFlag('', { shorthand: 'd' }),
  quiet: switchFlag('', { shorthand: 'q' }),
  name: textFlag('', { shorthand: 'n' }),
  env: listFlag('', { shorthand: 'e' }),
  replicas: countFlag('', { shorthand: 'r' }),
  ...unsupportedFlags(['secret']),
};

const accepted: readonly (readonly [readonly string[], object, readonly string[]])[] = [
  [['-dq', 'a'], { detach: true, quiet: true }, ['a']],
  [['-r3'], { replicas: 3 }, []],
  [['-r=3'], { replicas: 3 }, []],
  [['-dr', '3'], { detach: true, replicas: 3 }, []],
  [['--name=x=y'], { name: 'x=y' }, []],
  [['--name', '-x'], { name: '-x' }, []],
  [['--name='], { name: '' }, []],
  [['--detach=false'], { detach: false }, []],
  [['-d=false'], { detach: false }, []],
  [['-e', 'A=1', '--env', 'B=2'], { env: ['A=1', 'B=2'] }, []],
  [['--name', 'a', '--name', 'b'], { name: 'b' }, []],
  [['a', '-d', 'b'], { detach: true }, ['a', 'b']],
  [['-d', '--', '-q', '--name'], { detach: true }, ['-q', '--name']],
  [['-'], {}, ['-']],
];

for (const [argv, flags, words] of accepted)
  test(`"${argv.join(' ')}" is understood as pflag does`, () => {
    const result = parseFlags(table, argv);

    assert.deepEqual(result.flags, { env: [], ...flags });
    assert.deepEqual(result.words, words);
  });

const refused: readonly (readonly [readonly string[], string])[] = [
  [['--foo'], 'unknown flag: --foo'],
  [['--constructor'], 'unknown flag: --constructor'],
  [['-x'], "unknown shorthand flag: 'x' in -x"],
  [['-dx'], "unknown shorthand flag: 'x' in -dx"],
  [['--name'], 'flag needs an argument: --name'],
  [['-n'], "flag needs an argument: 'n' in -n"],
  [['--secret', 'a'], '--secret is not supported yet'],
  [['--secret=a'], '--secret is not supported yet'],
  [['--detach=maybe'], 'invalid argument "maybe" for "-d, --detach" flag: must be true or false'],
  [['-rx'], 'invalid argument "x" for "-r, --replicas" flag: must be a whole number, zero or more'],
];

for (const [argv, message] of refused)
  test(`"${argv.join(' ')}" is a bad flag`, () => {
    assert.throws(
      () => parseFlags(table, argv),
      (error) => error instanceof UsageError && error.exitCode === 125 && error.message === message,
    );
  });

test('flags behind the first word belong to the command in it when words end the flags', () => {
  const { flags, words } = parseFlags(table, ['-d', 'image', '-q', '--foo'], { isInterspersed: false });

  assert.deepEqual([flags.detach, flags.quiet, words], [true, undefined, ['image', '-q', '--foo']]);
});
