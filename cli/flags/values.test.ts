// The texts inside flags: units, words, ports, mounts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyMount, emptyPortConfig } from '../../core/generated/objects.ts';
import { parseMount } from './mounts.ts';
import { parsePublish, parseTargetPort } from './ports.ts';
import { parseBytes, parseCpus, parseDuration } from './units.ts';
import { splitCsv, splitShellWords } from './words.ts';

test('durations are Go durations in whole milliseconds', () => {
  const cases: Record<string, number> = {
    '0': 0,
    '10s': 10_000,
    '1h2m3.5s': 3_723_500,
    '500ms': 500,
    '1.5m': 90_000,
    '.5s': 500,
    '2000us': 2,
  };
  for (const [text, ms] of Object.entries(cases)) assert.equal(parseDuration(text), ms, text);
  for (const text of ['', '10', 's', '-1s', '1x', '1us', '1s2', 'abc', '1 s'])
    assert.throws(() => parseDuration(text), Error, text);
});

test('sizes are powers of 1024', () => {
  const cases: Record<string, number> = {
    '0': 0,
    '10': 10,
    '1k': 1024,
    '4m': 4 * 2 ** 20,
    '1g': 2 ** 30,
    '1.5GiB': 1.5 * 2 ** 30,
    '2KB': 2048,
    '1 m': 2 ** 20,
  };
  for (const [text, bytes] of Object.entries(cases)) assert.equal(parseBytes(text), bytes, text);
  for (const text of ['', '-1', '1x', 'm', '1.2.3', '99999999p'])
    assert.throws(() => parseBytes(text), Error, text);
});

test('CPUs are decimal numbers down to a billionth', () => {
  assert.equal(parseCpus('0.5'), 5e8);
  assert.equal(parseCpus('2'), 2e9);
  for (const text of ['', '-1', '1e3', 'two', '0.0000000001'])
    assert.throws(() => parseCpus(text), Error, text);
});

test('shell words honour quotes and backslashes', () => {
  assert.deepEqual(splitShellWords(`sh -c "echo 'a b' \\"c\\"" d\\ e ''`), [
    'sh',
    '-c',
    `echo 'a b' "c"`,
    'd e',
    '',
  ]);
  assert.deepEqual(splitShellWords('  '), []);
  assert.throws(() => splitShellWords('"a'));
});

test('CSV fields may be quoted', () => {
  assert.deepEqual(splitCsv('a=1,"b=2,3",c'), ['a=1', 'b=2,3', 'c']);
  assert.deepEqual(splitCsv('"say ""hi"""'), ['say "hi"']);
  for (const text of ['"a', 'a"b', '"a"b']) assert.throws(() => splitCsv(text), Error, text);
});

test('published ports have a long and a short syntax', () => {
  const host = { ...emptyPortConfig, targetPort: 80, publishMode: 'host' };
  assert.deepEqual(parsePublish('mode=host,target=80'), [host]);
  assert.deepEqual(parsePublish('published=53,target=5353,protocol=UDP,mode=host'), [
    { ...host, protocol: 'udp', targetPort: 5353, publishedPort: 53 },
  ]);
  assert.deepEqual(parsePublish('8080:80'), [{ ...host, publishedPort: 8080, publishMode: 'ingress' }]);
  assert.deepEqual(
    parsePublish('8000-8001:80-81/udp').map((port) => [port.publishedPort, port.targetPort, port.protocol]),
    [
      [8000, 80, 'udp'],
      [8001, 81, 'udp'],
    ],
  );
  assert.deepEqual(parsePublish('target=80,address=[fd00::1],local=PREFER'), [
    { ...host, publishMode: 'ingress', hostAddress: 'fd00::1', locality: 'prefer' },
  ]);
  assert.deepEqual(parsePublish('target=80,interface=eth0')[0]?.hostInterface, 'eth0');
  for (const [text, address, published] of [
    ['10.0.0.1:8080:80', '10.0.0.1', 8080],
    ['[fd00::1]:8080:80', 'fd00::1', 8080],
    ['10.0.0.1::80', '10.0.0.1', 0],
  ] as const)
    assert.deepEqual(parsePublish(text), [
      { ...host, publishMode: 'ingress', hostAddress: address, publishedPort: published },
    ]);
  assert.deepEqual(parseTargetPort('53/udp'), { targetPort: 53, protocol: 'udp' });
  for (const text of [
    '0',
    '70000',
    'a:b',
    '1:2:3',
    '8000-8001:80',
    'fd00::1:8080:80',
    '10.0.0.1:80',
    'eth0:80:80',
    'target=80,address=eth0',
    'target=80,local=maybe',
    'target=80,mode=magic',
    'target=80,x=y',
    '80/icmp',
  ])
    assert.throws(() => parsePublish(text), Error, text);
});

test('mounts name their type, source and target', () => {
  assert.deepEqual(parseMount('type=bind,src=/a,dst=/b,ro,bind-propagation=rslave'), {
    ...emptyMount,
    type: 'bind',
    source: '/a',
    target: '/b',
    readOnly: true,
    bindPropagation: 'rslave',
  });
  const tmpfs = parseMount('type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1777');
  assert.deepEqual([tmpfs.tmpfsSizeBytes, tmpfs.tmpfsMode], [64 * 2 ** 20, 0o1777]);
  for (const text of [
    'type=bind,target=/b',
    'type=bind,source=/a',
    'type=tmpfs,source=/a,target=/b',
    'type=tmpfs,target=/b,tmpfs-mode=9',
    'type=bind,source=/a,target=/b,tmpfs-size=1m',
    'type=npipe,source=a,target=/b',
    'target=/b,volume-opt=a',
    'target=/b,volume-subpath=../up',
    'target=/b,image-subpath=a',
    'type=image,target=/b',
    'type=tmpfs,target=/b,colour=red',
    'type=tmpfs,target=/b,readonly=perhaps',
    'type=tmpfs,/b',
  ])
    assert.throws(() => parseMount(text), Error, text);
});
