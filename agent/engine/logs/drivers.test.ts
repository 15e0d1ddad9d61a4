// Lines on their way to other logs, over real sockets.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { type LogTarget, parseLogDriver, type SyslogTarget } from '../../../core/log-driver.ts';
import { testLog } from '../../../test/support/engine.ts';
import { eventually } from '../../../test/support/eventually.ts';
import { libcFunctions } from '../../linux/libc.ts';
import type { LogSettings } from '../engine.ts';
import { checkTarget, journalEntry, syslogMessage } from './line-sink.ts';
import { LogService } from './log-service.ts';

const line = { stream: 'stdout' as const, line: 'hello\n', time: '2026-01-02T03:04:05.123456789Z' };

function syslog(options: Record<string, string>): SyslogTarget {
  return parseLogDriver('syslog', options).target as SyslogTarget;
}

/** A container that writes to a log service of its own. */
function start(t: TestContext, settings: Partial<LogSettings>) {
  const root = mkdtempSync(path.join(tmpdir(), 'rch-log-'));
  const directory = path.join(root, 'c');
  mkdirSync(directory);
  let dropped = 0;
  const service = new LogService(path.join(root, 'spool'), testLog, (lines) => {
    dropped += lines;
  });
  const all = { maxSizeBytes: 0, maxFiles: 1, tag: 'web', name: 'web.1', driver: 'syslog', ...settings };
  service.open('c', directory, all);
  t.after(() => {
    service[Symbol.dispose]();
    rmSync(root, { recursive: true, force: true });
  });
  return {
    root,
    write: (text: string) => appendFileSync(service.spoolPaths('c').stdout, text),
    dropped: () => dropped,
    kept: async () => {
      const lines: string[] = [];
      for await (const some of service.read('c', directory, {}))
        lines.push(...some.map((record) => record.line));
      return lines;
    },
  };
}

test('a journal entry has a line a field, and the length of what has lines of its own', () => {
  const entry = journalEntry({ ...line, line: 'a\nb\n', stream: 'stderr' }, { CONTAINER_NAME: 'web.1' });

  assert.equal(
    entry.toString('latin1'),
    'CONTAINER_NAME=web.1\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=3\nSYSLOG_TIMESTAMP=2026-01-02T03:04:05.123456789Z\n',
  );
});

test('syslog has its formats, and on TLS the length of each message', () => {
  const text = (options: Record<string, string>) => syslogMessage(line, syslog(options), 'web').toString();

  assert.match(text({}), /^<30>Jan {2}2 \d\d:04:05 web\[\d+\]: hello$/);
  assert.match(
    text({ 'syslog-format': 'rfc5424', 'syslog-address': 'tcp://h', 'syslog-facility': 'local0' }),
    /^<134>1 2026-01-02T03:04:05Z \S+ web \d+ web - hello\n$/,
  );
  const framed = text({ 'syslog-format': 'rfc5424micro', 'syslog-address': 'tcp+tls://h' });
  assert.match(framed, /^\d+ <30>1 2026-01-02T03:04:05\.123456Z /);
  assert.equal(framed.length, Number.parseInt(framed, 10) + `${Number.parseInt(framed, 10)} `.length);
});

test('lines arrive over UDP and stay readable here', async (t) => {
  const server = createSocket('udp4').bind(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const heard: string[] = [];
  server.on('message', (message) => heard.push(message.toString()));
  const box = start(t, { target: syslog({ 'syslog-address': `udp://127.0.0.1:${server.address().port}` }) });

  box.write('one\ntwo\n');

  await eventually(() => heard.length === 2);
  assert.match(heard[1] ?? '', /web\[\d+\]: two$/);
  assert.deepEqual(await box.kept(), ['one\n', 'two\n']);
});

test('a socket of this machine gets datagrams', async (t) => {
  const socketPath = path.join(mkdtempSync(path.join(tmpdir(), 'rch-sock-')), 's');
  const fd = libcFunctions.socket(1, 2 | 0o4000, 0);
  const address = Buffer.concat([Buffer.from([1, 0]), Buffer.from(`${socketPath}\0`)]);
  assert.equal(libcFunctions.bind(fd, address, address.length), 0);
  t.after(() => {
    libcFunctions.close(fd);
    rmSync(path.dirname(socketPath), { recursive: true });
  });
  const box = start(t, { target: syslog({ 'syslog-address': `unix://${socketPath}` }), keepsFile: false });

  box.write('hello\n');

  const buffer = Buffer.alloc(1000);
  let length = 0;
  await eventually(() => {
    length = Number(libcFunctions.recv(fd, buffer, buffer.length, 0x40));
    return length > 0;
  });
  assert.match(buffer.toString('utf8', 0, length), /^<30>.* web\[\d+\]: hello$/);
  assert.deepEqual(await box.kept(), []);
});

test('a server that is away loses what does not fit, counted and told, and gets the rest when it is back', async (t) => {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  const box = start(t, { target: syslog({ 'syslog-address': `tcp://127.0.0.1:${port}` }) });

  // More than the queue holds.
  for (let index = 0; index < 4_000; index += 1) box.write(`${index} ${'x'.repeat(990)}\n`);
  await eventually(() => box.dropped() > 2_000);
  const heard: Buffer[] = [];
  const server = createServer((socket: Socket) => socket.on('data', (data) => heard.push(data)));
  server.listen(port, '127.0.0.1');
  t.after(() => server.close());

  await eventually(() => Buffer.concat(heard).toString().split('\n').length + box.dropped() > 4_000, 20_000);
  assert.match(Buffer.concat(heard).toString(), /web\[\d+\]: 0 x/);
  const kept = await box.kept();
  assert.equal(kept.filter((text) => /^\d+ x/.test(text)).length, 4_000);
  assert.match(kept.find((text) => text.startsWith('[tsswarm')) ?? '', /\d+ lines were dropped, syslog/);
});

test('what a container says of itself is kept with its lines', async (t) => {
  const box = start(t, { details: { tier: 'db' } });
  box.write('hello\n');

  await eventually(async () => (await box.kept()).length === 1);
});

test('a machine without the socket refuses the container', () => {
  const target = syslog({ 'syslog-address': 'unix:///no/such/socket' }) as LogTarget;

  assert.throws(() => checkTarget(target, 'n1'), {
    code: 'failed-precondition',
    message: 'log-driver syslog: node n1 has no /no/such/socket',
  });
});
