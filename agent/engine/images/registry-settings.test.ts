import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forbiddenAddress, isInsecureHost, plainRegistrySettings } from './registry-settings.ts';

test('only listed registries and this machine are spoken to without TLS', () => {
  const settings = {
    ...plainRegistrySettings,
    insecure: ['a.example:5000'],
    authorities: { '127.0.0.1:1': 'PEM' },
  };
  for (const host of ['a.example:5000', 'localhost', 'localhost:5000', '127.0.0.2:80', '[::1]:5000'])
    assert.ok(isInsecureHost(settings, host), host);
  for (const host of [
    'a.example',
    'a.example:5001',
    'localhost.example',
    '127.0.0.1.example',
    '10.0.0.1',
    '127.0.0.1:1',
  ])
    assert.ok(!isInsecureHost(settings, host), host);
});

test('nobody is sent to a link-local address, and to this machine only by itself', () => {
  for (const address of ['169.254.169.254', 'fe80::1', '0.0.0.0', '::', '::ffff:169.254.0.1'])
    for (const senderIsLocal of [false, true]) assert.ok(forbiddenAddress(address, senderIsLocal), address);
  for (const address of ['127.0.0.1', '::1', '127.1.2.3']) {
    assert.ok(forbiddenAddress(address, false), address);
    assert.equal(forbiddenAddress(address, true), undefined, address);
  }
  for (const address of ['10.0.0.1', '1.1.1.1', '2001:db8::1', 'fd00::1'])
    assert.equal(forbiddenAddress(address, false), undefined, address);
});
