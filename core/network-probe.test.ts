import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNetworkProbe } from './network-probe.ts';

test('a port and a path make a request, a port alone one for the root', () => {
  assert.deepEqual(parseNetworkProbe(['HTTP', '8080/healthz?full=1']), {
    kind: 'http',
    port: 8080,
    path: '/healthz?full=1',
  });
  assert.equal(parseNetworkProbe(['HTTP', '80'])?.path, '/');
});

test('a port makes a connection', () => {
  assert.deepEqual(parseNetworkProbe(['TCP', '5432']), { kind: 'tcp', port: 5432, path: '' });
});

test('commands, and no test at all, are none of these', () => {
  for (const test of [[], ['NONE'], ['CMD', 'true'], ['CMD-SHELL', 'HTTP 80']])
    assert.equal(parseNetworkProbe(test), undefined);
});

test('what is neither is refused by the name of its flag', () => {
  for (const target of ['', '0', '65536', 'web:80', '80/a b', '80/\r\nX: y', 'http://127.0.0.1/'])
    assert.throws(() => parseNetworkProbe(['HTTP', target]), /^SwarmError: health-http: /);
  for (const target of ['', '0', '65536', '80/', 'web:80'])
    assert.throws(() => parseNetworkProbe(['TCP', target]), /^SwarmError: health-tcp: /);
});
