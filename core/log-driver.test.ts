import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatTag, logDetails, parseLogDriver } from './log-driver.ts';

test('files have a size and a number, a cache beside another driver has its own', () => {
  const file = parseLogDriver('json-file', { 'max-size': '10m', 'max-file': '3' });
  const cache = parseLogDriver('journald', {});
  const none = parseLogDriver('syslog', { 'cache-disabled': 'true' });

  assert.deepEqual([file.maxSizeBytes, file.maxFiles, file.keepsFile], [10_485_760, 3, true]);
  assert.deepEqual([cache.maxSizeBytes, cache.maxFiles, cache.keepsFile], [20_971_520, 5, true]);
  assert.equal(none.keepsFile, false);
  assert.equal(parseLogDriver('none', {}).keepsFile, false);
});

test('an address of syslog is a socket, or a host with a port', () => {
  const target = (address: string) => {
    const { transport, host, port } = parseLogDriver('syslog', { 'syslog-address': address }).target as {
      transport: string;
      host: string;
      port: number;
    };
    return [transport, host, port];
  };

  assert.deepEqual(target(''), ['unixgram', '/dev/log', 0]);
  assert.deepEqual(target('unixgram:///run/x'), ['unixgram', '/run/x', 0]);
  assert.deepEqual(target('udp://log.example'), ['udp', 'log.example', 514]);
  assert.deepEqual(target('tcp://10.0.0.1:601'), ['tcp', '10.0.0.1', 601]);
  assert.deepEqual(target('tcp+tls://[fd00::1]'), ['tcp+tls', 'fd00::1', 6514]);
});

test('what is wrong is named, with what would be right', () => {
  const cases: [string, Record<string, string>, RegExp][] = [
    ['gelf', {}, /^log-driver: "gelf" is not supported/],
    ['none', { 'max-size': '1m' }, /^log-opt: "max-size" is unknown; none has no options/],
    ['json-file', { colour: 'true' }, /^log-opt: "colour" is unknown; json-file has max-size/],
    [
      'json-file',
      { compress: 'true', 'max-size': '1m' },
      /^log-opt: compress needs max-size, and a max-file/,
    ],
    ['json-file', { compress: 'gzip' }, /^log-opt: compress "gzip" must be true or false/],
    ['json-file', { 'max-file': '3' }, /^log-opt: max-file needs max-size/],
    ['syslog', { 'syslog-address': 'log.example:514' }, /^log-opt: syslog-address "log.example:514" must be/],
    ['syslog', { 'syslog-address': 'tcp://h:99999' }, /^log-opt: syslog-address/],
    ['syslog', { 'syslog-facility': 'kernel' }, /^log-opt: syslog-facility "kernel" must be a name/],
    ['syslog', { 'syslog-format': 'rfc1' }, /^log-opt: syslog-format "rfc1" must be/],
    ['syslog', { 'syslog-tls-skip-verify': 'true' }, /^log-opt: syslog-tls-skip-verify is for/],
    ['journald', { 'cache-disabled': 'yes' }, /^log-opt: cache-disabled "yes" must be true or false/],
    ['json-file', { 'env-regex': '(' }, /^log-opt: env-regex: /],
    ['json-file', { tag: '{{.Nothing' }, /^log-opt: tag: /],
  ];
  for (const [driver, options, message] of cases)
    assert.throws(() => parseLogDriver(driver, options), { message }, JSON.stringify([driver, options]));
});

test('lines say of their container what the options name', () => {
  const config = parseLogDriver('json-file', {
    labels: 'tier',
    env: 'COLOUR',
    'env-regex': '^APP_',
    tag: '{{.Name}}/{{.ID}}',
  });

  const details = logDetails(config, {
    labels: { tier: 'db', other: 'x' },
    env: ['COLOUR=red', 'APP_A=1=2', 'HOME=/'],
  });

  assert.deepEqual(details, { tier: 'db', COLOUR: 'red', APP_A: '1=2' });
  const facts = { ID: 'abc', FullID: 'abcdef', Name: 'web.1', ImageName: 'nginx', DaemonName: 'd' };
  assert.equal(formatTag(config.tag, facts), 'web.1/abc');
  assert.equal(formatTag('', facts), 'abc');
});
