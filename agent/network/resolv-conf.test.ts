import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planResolvConf } from './resolv-conf.ts';

test("the host's IPv4 name servers and search list are kept, loopback and IPv6 servers are not", () => {
  const host = [
    '# made by hand',
    'nameserver 127.0.0.1',
    'nameserver 192.0.2.53',
    'nameserver fe80::1%eth0',
    'search a.example b.example',
    'options ndots:2 edns0',
  ].join('\n');

  assert.deepEqual(planResolvConf([host]).split('\n').slice(1), [
    'nameserver 192.0.2.53',
    'search a.example b.example',
    'options ndots:2 edns0',
    '',
  ]);
});

test('behind a local stub resolver, its upstream servers are used', () => {
  const upstream = 'nameserver 198.51.100.53\nsearch lan\n';

  assert.match(planResolvConf(['nameserver 127.0.0.53\n', upstream]), /^nameserver 198\.51\.100\.53$/m);
});

test('a node without a usable name server says so in the file', () => {
  for (const sources of [[], ['nameserver ::1\nsearch lan']]) {
    const output = planResolvConf(sources);
    assert.match(output, /^# The node has no name server/m);
    assert.doesNotMatch(output, /^nameserver/m);
  }
});
