import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseExternalCa } from './external-ca.ts';

const URL = 'https://ca.example:8888/api/v1/cfssl/sign';

test('an external authority is named by protocol and address', () => {
  const plain = { protocol: 'cfssl', url: URL, caCertFile: undefined, options: {} };
  assert.deepEqual(parseExternalCa(`protocol=cfssl,url=${URL}`), plain);
  assert.deepEqual(parseExternalCa(`url=${URL}, Protocol=CFSSL`), plain);
});

test('it may have a certificate and options of its own, which keep their "="', () => {
  const flag = parseExternalCa(`protocol=cfssl,url=${URL}?a=b,cacert=/etc/ca.pem,profile=node,label=x=y`);
  assert.deepEqual(flag, {
    protocol: 'cfssl',
    url: `${URL}?a=b`,
    caCertFile: '/etc/ca.pem',
    options: { profile: 'node', label: 'x=y' },
  });
});

for (const [text, message] of [
  ['', /external-ca: "" is no KEY=VALUE/],
  ['protocol=cfssl,url', /external-ca: "url" is no KEY=VALUE/],
  ['=cfssl', /external-ca: "=cfssl" is no KEY=VALUE/],
  [`url=${URL}`, /external-ca protocol: is missing/],
  [`protocol=acme,url=${URL}`, /external-ca protocol: "acme" is not known/],
  ['protocol=cfssl', /external-ca url: is missing/],
  ['protocol=cfssl,url=', /external-ca url: "" is no address/],
  ['protocol=cfssl,url=ca.example:8888', /external-ca url: "ca.example:8888" is no address/],
  ['protocol=cfssl,url=ftp://ca', /external-ca url: "ftp:\/\/ca" is no address/],
  [`protocol=cfssl,url=${URL},cacert=`, /external-ca cacert: names no file/],
  [`protocol=cfssl,url=${URL},url=${URL}`, /external-ca: url is there twice/],
] as const)
  test(`"${text}" is refused, and the field is named`, () => {
    assert.throws(() => parseExternalCa(text), { code: 'invalid-argument', message });
  });
