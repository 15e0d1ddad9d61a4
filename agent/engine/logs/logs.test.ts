import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { testLog } from '../../../test/support/engine.ts';
import { eventually } from '../../../test/support/eventually.ts';
import type { LogQuery, LogSettings } from '../engine.ts';
import { LogService } from './log-service.ts';
import { readLog } from './reader.ts';
import { LogTailer } from './tailer.ts';

class Bench implements Disposable {
  readonly root = mkdtempSync(path.join(tmpdir(), 'tsw-log-'));
  readonly directory = path.join(this.root, 'c');
  readonly settings: LogSettings;
  readonly spool = { stdout: path.join(this.root, 'c.out'), stderr: path.join(this.root, 'c.err') };

  constructor(settings: LogSettings = { maxSizeBytes: 0, maxFiles: 1 }) {
    this.settings = settings;
    mkdirSync(this.directory);
    for (const file of Object.values(this.spool)) writeFileSync(file, '');
  }

  tailer(nowMs: () => number = Date.now): LogTailer {
    const { directory, settings, spool } = this;
    return new LogTailer({ directory, settings, spool, log: testLog, nowMs });
  }

  write(stream: 'stdout' | 'stderr', text: string | Uint8Array): void {
    appendFileSync(this.spool[stream], text);
  }

  async read(query: LogQuery = {}, tailer?: LogTailer): Promise<string[]> {
    const lines: string[] = [];
    for await (const some of readLog(this.directory, tailer, query))
      lines.push(...some.map(({ line }) => line));
    return lines;
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}

test('lines of both streams are stored with rising times, an unfinished one at the end only', async () => {
  using bench = new Bench();
  const tailer = bench.tailer();
  bench.write('stdout', 'one\ntwo\nunfin');
  bench.write('stderr', 'Grüße "x"\n');
  tailer.drain();

  assert.deepEqual(await bench.read(), ['one\n', 'two\n', 'Grüße "x"\n']);
  bench.write('stdout', 'ished');
  tailer.finish();
  assert.deepEqual((await bench.read()).at(-1), 'unfinished');
  const times: string[] = [];
  for await (const some of readLog(bench.directory, undefined, {}))
    times.push(...some.map(({ time }) => time));
  assert.deepEqual(times, [...new Set(times)].sort());
  assert.match(times[0] ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/);
});

test('bytes that are no UTF-8 lose no line, and a line without end is cut', async () => {
  using bench = new Bench({ maxSizeBytes: 100, maxFiles: 100 });
  const tailer = bench.tailer();
  for (let index = 0; index < 20; index += 1)
    bench.write('stdout', Buffer.from([0xff, 0xfe, 0x41 + index, 0x0a]));
  tailer.drain();
  bench.write('stdout', 'é'.repeat(10_000));
  tailer.drain();
  bench.write('stdout', 'end\n');
  tailer.finish();

  const lines = await bench.read();
  assert.equal(lines.length, 22);
  assert.equal(lines[19], '\ufffd\ufffdT\n');
  assert.equal(lines.slice(20).join(''), `${'é'.repeat(10_000)}end\n`);
});

test('files are rotated by size and the oldest are dropped', async () => {
  using bench = new Bench({ maxSizeBytes: 1000, maxFiles: 3 });
  const tailer = bench.tailer();
  for (let index = 0; index < 100; index += 1) bench.write('stdout', `line ${index}\n`);
  tailer.finish();

  const files = readdirSync(bench.directory).filter((name) => name.startsWith('log.json'));
  assert.deepEqual(files.sort(), ['log.json', 'log.json.1', 'log.json.2']);
  for (const file of files) assert.ok(statSync(path.join(bench.directory, file)).size < 1100, file);
  const lines = await bench.read();
  assert.equal(lines.at(-1), 'line 99\n');
  assert.deepEqual(
    lines,
    Array.from({ length: lines.length }, (_, index) => `line ${100 - lines.length + index}\n`),
  );
});

test('the last lines are found across files, and those before a time are left out', async () => {
  using bench = new Bench({ maxSizeBytes: 500, maxFiles: 50 });
  const tailer = bench.tailer();
  for (let index = 0; index < 50; index += 1) bench.write('stdout', `${index}\n`);
  tailer.finish();

  for (const tail of [0, 1, 5, 7, 49, 50, 99]) {
    const expected = Array.from({ length: 50 }, (_, index) => `${index}\n`).slice(tail === 0 ? 50 : -tail);
    assert.deepEqual(await bench.read({ tail }), expected, `tail ${tail}`);
  }
  assert.deepEqual(await bench.read({ sinceMs: Date.now() + 1000 }), []);
  assert.equal((await bench.read({ sinceMs: Date.now() - 60_000 })).length, 50);
});

test('a reader follows through rotations to the end', async () => {
  using bench = new Bench({ maxSizeBytes: 300, maxFiles: 1000 });
  const tailer = bench.tailer();
  bench.write('stdout', '0\n');
  tailer.drain();
  const reading = bench.read({ follow: true }, tailer);
  for (let index = 1; index < 200; index += 1) {
    bench.write('stdout', `${index}\n`);
    if (index % 7 === 0) tailer.drain();
    if (index % 20 === 0) await delay(0);
  }
  tailer.finish();

  assert.deepEqual(
    await reading,
    Array.from({ length: 200 }, (_, index) => `${index}\n`),
  );
});

test('a reader goes on behind a line that it knows, in whichever file that lies', async () => {
  using bench = new Bench({ maxSizeBytes: 100_000, maxFiles: 50 });
  const tailer = bench.tailer();
  for (let index = 0; index < 4_000; index += 1) bench.write('stdout', `${index}\n`);
  tailer.finish();
  const times: string[] = [];
  for await (const some of readLog(bench.directory, undefined, {}))
    times.push(...some.map(({ time }) => time));

  for (const index of [0, 1, 500, 1_333, 2_000, 3_998, 3_999]) {
    const lines = await bench.read({ after: times[index] as string });
    assert.equal(lines[0], index === 3_999 ? undefined : `${index + 1}\n`);
    assert.equal(lines.length, 3_999 - index);
  }
  assert.equal((await bench.read({ after: '' })).length, 4_000);
});

test('times go on when the clock of the machine jumps back, in the next process too', async () => {
  using bench = new Bench();
  let nowMs = Date.parse('2026-01-01T10:00:00Z');
  const tailer = bench.tailer(() => nowMs);
  bench.write('stdout', 'one\n');
  tailer.drain();
  nowMs -= 3_600_000;
  bench.write('stdout', 'two\n');
  tailer.drain();
  tailer.close();
  nowMs -= 3_600_000;
  const next = bench.tailer(() => nowMs);
  bench.write('stdout', 'three\n');
  next.drain();
  nowMs += 3 * 3_600_000;
  bench.write('stdout', 'four\n');
  next.finish();

  const times: string[] = [];
  for await (const some of readLog(bench.directory, undefined, {}))
    times.push(...some.map(({ time }) => time));
  assert.deepEqual(times, [...new Set(times)].sort());
  assert.match(times[3] ?? '', /^2026-01-01T11:/);
});

test('a reader that follows stops when it is told to', async () => {
  using bench = new Bench();
  const tailer = bench.tailer();
  const stop = new AbortController();
  const reading = bench.read({ follow: true, signal: stop.signal }, tailer);
  await delay(0);
  stop.abort();

  assert.deepEqual(await reading, []);
  tailer.close();
});

test('the spool takes no room for what has been read', async () => {
  using bench = new Bench({ maxSizeBytes: 1_000_000, maxFiles: 1 });
  const tailer = bench.tailer();
  for (let index = 0; index < 12; index += 1) {
    bench.write('stdout', `${'x'.repeat(1023)}\n`.repeat(1024));
    tailer.drain();
  }

  const { size, blocks } = statSync(bench.spool.stdout);
  assert.equal(size, 12 * 2 ** 20);
  assert.ok(blocks * 512 < 6 * 2 ** 20, `${blocks * 512} bytes`);
  tailer.close();
});

test('output that comes much faster than it can be stored is dropped with a note', async () => {
  using bench = new Bench();
  const tailer = bench.tailer();
  truncateSync(bench.spool.stdout, 200 * 2 ** 20);
  bench.write('stdout', '\nlast\n');
  tailer.finish();

  const lines = await bench.read();
  assert.match(lines[0] ?? '', /^\[tsswarm: dropped \d+ bytes of output/);
  assert.equal(lines.at(-1), 'last\n');
});

test('files behind a rotation that was cut off are read, and the next rotation closes the gap', async () => {
  using bench = new Bench({ maxSizeBytes: 400, maxFiles: 10 });
  const tailer = bench.tailer();
  const write = (from: number, to: number) => {
    for (let number = from; number < to; number++) {
      bench.write('stdout', `${number}\n`);
      tailer.drain();
    }
  };
  const numbers = (count: number) => Array.from({ length: count }, (_, number) => `${number}\n`);
  write(0, 30);
  const files = () => readdirSync(bench.directory).filter((name) => name.startsWith('log.json'));
  const before = files().length;
  // Killed after all renames but the last.
  for (let index = before - 1; index >= 1; index--)
    renameSync(
      path.join(bench.directory, `log.json.${index}`),
      path.join(bench.directory, `log.json.${index + 1}`),
    );
  assert.deepEqual(await bench.read(), numbers(30));
  write(30, 40);
  assert.deepEqual(await bench.read(), numbers(40));
  assert.ok(files().includes('log.json.1'));
  tailer.close();
});

test('every line is stored exactly once although the tailer is killed at random', async (t) => {
  using bench = new Bench({ maxSizeBytes: 400_000, maxFiles: 1000 });
  let seed = Number(process.env['TSSWARM_TEST_SEED'] ?? Date.now() % 1_000_000);
  t.diagnostic(`seed ${seed}`);
  const random = () => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return seed / 2 ** 31;
  };
  const { directory, settings, spool } = bench;
  const child = path.join(import.meta.dirname, '../../../test/support/tail-child.ts');
  let written = 0;
  for (let round = 0; round < 6; round += 1) {
    const process_ = spawn(process.execPath, [child, JSON.stringify({ directory, settings, spool })], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(process_.stdout, 'data');
    const until = Date.now() + 20 + random() * 60;
    while (Date.now() < until) {
      const lines = Array.from({ length: 500 }, () => `${written++}\n`);
      bench.write('stdout', lines.join(''));
      await delay(0);
    }
    const exited = once(process_, 'exit');
    process_.kill('SIGKILL');
    await exited;
  }
  bench.tailer().finish();

  const lines = await bench.read();
  assert.equal(lines.length, written);
  assert.equal(
    lines.findIndex((line, index) => line !== `${index}\n`),
    -1,
  );
});

/** A service that writes, and what has been written so far. */
function startService(bench: Bench) {
  const service = new LogService(path.join(bench.root, 'spool'), testLog);
  service.open('c1', bench.directory, bench.settings);
  let written = 0;
  return {
    service,
    write(count: number) {
      const lines = Array.from({ length: count }, () => `${written++} ${'x'.repeat(60)}\n`);
      appendFileSync(service.spoolPaths('c1').stdout, lines.join(''));
    },
    read: async (query: LogQuery = {}) => {
      const numbers: number[] = [];
      for await (const some of service.read('c1', bench.directory, query))
        numbers.push(...some.map(({ line }) => Number.parseInt(line, 10)));
      return numbers;
    },
  };
}

const numbersUntil = (end: number, start = 0) =>
  Array.from({ length: end - start }, (_, index) => start + index);

function filesOf({ directory }: Bench): string[] {
  return readdirSync(directory)
    .filter((name) => name.startsWith('log.json'))
    .sort();
}

const compressing = { maxSizeBytes: 20_000, maxFiles: 5, compress: true };

test('rotated files are compressed, and read as if they were not', async () => {
  using bench = new Bench({ ...compressing, maxFiles: 50 });
  const { service, write, read } = startService(bench);
  using _ = service;
  const following = read({ follow: true });
  for (let round = 0; round < 10; round += 1) {
    write(200);
    await eventually(async () => (await read({ tail: 1 }))[0] === (round + 1) * 200 - 1);
  }
  await eventually(() => filesOf(bench).every((name) => name === 'log.json' || name.endsWith('.gz')));

  assert.ok(filesOf(bench).length > 10);
  const [oldest = ''] = filesOf(bench).slice(-1);
  assert.ok(statSync(path.join(bench.directory, oldest)).size < 5_000);
  assert.deepEqual(await read(), numbersUntil(2_000));
  for (const tail of [0, 1, 150, 777, 1_999, 2_000, 3_000])
    assert.deepEqual(await read({ tail }), numbersUntil(2_000, Math.max(0, 2_000 - tail)), `tail ${tail}`);
  const times: string[] = [];
  for await (const some of service.read('c1', bench.directory, {}))
    times.push(...some.map(({ time }) => time));
  for (const index of [0, 333, 1_500, 1_998])
    assert.deepEqual(await read({ after: times[index] as string }), numbersUntil(2_000, index + 1));
  service.finish('c1', bench.directory, bench.settings);
  assert.deepEqual(await following, numbersUntil(2_000));
});

test('as many files are kept with compression as without, and a removed log leaves none', async () => {
  using bench = new Bench(compressing);
  const { service, write, read } = startService(bench);
  using _ = service;
  for (let round = 1; round <= 10; round += 1) {
    write(300);
    await eventually(async () => (await read({ tail: 1 }))[0] === round * 300 - 1);
  }
  await eventually(() => filesOf(bench).every((name) => name === 'log.json' || name.endsWith('.gz')));

  assert.deepEqual(filesOf(bench), ['log.json', ...[1, 2, 3, 4].map((index) => `log.json.${index}.gz`)]);
  const numbers = await read();
  assert.deepEqual(numbers, numbersUntil(3_000, numbers[0]));
  write(300);
  service.remove('c1', bench.directory, false);
  await delay(20);
  assert.deepEqual(filesOf(bench), []);
});

test('a file is whole at every step of its compression, whatever a crash leaves', async () => {
  using bench = new Bench({ ...compressing, maxFiles: 50 });
  const tailer = bench.tailer();
  bench.write(
    'stdout',
    numbersUntil(1_000)
      .map((number) => `${number} ${'x'.repeat(60)}\n`)
      .join(''),
  );
  tailer.finish();
  const at = (name: string) => path.join(bench.directory, name);
  const plain = readFileSync(at('log.json.1'));
  const read = async () => (await bench.read()).map((line) => Number.parseInt(line, 10));

  // Half-way, then renamed with the other one still there, then alone.
  writeFileSync(at('log.json.unfinished'), gzipSync(plain).subarray(0, 100));
  assert.deepEqual(await read(), numbersUntil(1_000));
  writeFileSync(at('log.json.1.gz'), gzipSync(plain));
  assert.deepEqual(await read(), numbersUntil(1_000));
  const { service } = startService(bench);
  using _ = service;
  await eventually(() => filesOf(bench).every((name) => name === 'log.json' || name.endsWith('.gz')));
  assert.deepEqual(await read(), numbersUntil(1_000));

  // Not by us: a damaged one hides nothing else.
  truncateSync(at('log.json.2.gz'), 400);
  const lines = await bench.read();
  assert.match(
    lines.find((line) => line.startsWith('[tsswarm')) ?? '',
    /the rest of .*log\.json\.2\.gz cannot be read/,
  );
  assert.equal(Number.parseInt(lines.at(-1) ?? '', 10), 999);
});

test('the service stores what is written without being asked', async () => {
  using bench = new Bench();
  using service = new LogService(path.join(bench.root, 'spool'), testLog);
  service.open('c1', bench.directory, bench.settings);
  appendFileSync(service.spoolPaths('c1').stderr, 'seen\n');

  const lines = await eventually(async () => {
    const found = await bench.read();
    return found.length > 0 && found;
  });

  assert.deepEqual(lines, ['seen\n']);
});
