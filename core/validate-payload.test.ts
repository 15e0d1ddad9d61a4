import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from './defaults.ts';
import {
  emptyFileReference,
  emptyMount,
  emptyPayloadSpec,
  type FileReference,
  type PayloadSpec,
} from './generated/objects.ts';
import { targetOf, validatePayloadData, validatePayloadSpec } from './validate-payload.ts';
import { validateServiceSpec } from './validate-spec.ts';

const named = (name: string, change: Partial<PayloadSpec> = {}) => ({ ...emptyPayloadSpec, name, ...change });
const reference = (change: Partial<FileReference> = {}): FileReference => ({
  ...emptyFileReference,
  sourceId: 'db',
  sourceName: 'db',
  target: 'db',
  mode: 0o444,
  ...change,
});
const validate = (secrets: FileReference[], configs: FileReference[] = [], mounts: string[] = []) =>
  validateServiceSpec(
    newServiceSpec('web', {
      image: 'busybox',
      secrets,
      configs,
      mounts: mounts.map((target) => ({ ...emptyMount, type: 'tmpfs' as const, target })),
    }),
  );

test('names are those of Swarm', () => {
  for (const name of ['a', 'a.b', 'A_b-c.d9', 'x'.repeat(64)]) validatePayloadSpec(named(name));
  for (const name of ['', '-a', 'a.', 'a b', 'ä', 'x'.repeat(65)])
    assert.throws(() => validatePayloadSpec(named(name)), /^SwarmError: name: .* must have 1 to 64/);
});

test('sizes are those of Swarm', () => {
  validatePayloadData('secret', named('a'), Buffer.alloc(500 * 1024 - 1));
  validatePayloadData('config', named('a'), Buffer.alloc(1000 * 1024 - 1));
  for (const [kind, length] of [
    ['secret', 0],
    ['secret', 500 * 1024],
    ['config', 0],
    ['config', 1000 * 1024],
  ] as const)
    assert.throws(() => validatePayloadData(kind, named('a'), Buffer.alloc(length)), /data: a .* less than/);
});

test('a template is looked at when it is created', () => {
  const golang = named('a', { templateDriver: 'golang' });
  validatePayloadSpec(golang);
  validatePayloadData('secret', golang, Buffer.from('{{env "A"}}{{.Service.Labels.any}}'));
  assert.throws(() => validatePayloadData('secret', golang, Buffer.from('{{if}}')), /template: /);
  assert.throws(() => validatePayloadData('secret', golang, Buffer.from('{{sh}}')), /"sh" not defined/);
  assert.throws(() => validatePayloadData('config', golang, Buffer.from([0xff])), /template: /);
  assert.throws(
    () => validatePayloadSpec(named('a', { templateDriver: 'x' })),
    /template-driver: "x" must be/,
  );
});

test('relative targets are below the directory of their kind', () => {
  assert.equal(targetOf('secret', reference()), '/run/secrets/db');
  assert.equal(targetOf('config', reference()), '/db');
  assert.equal(targetOf('config', reference({ target: '/etc/x' })), '/etc/x');
});

test('references are refused with what would be right', () => {
  validate([reference({ signal: 'SIGHUP' })], [reference({ target: '/etc/db', version: 3 })]);
  assert.throws(
    () => validate([reference(), reference({ sourceId: 'x' })]),
    /target "\/run\/secrets\/db" is that of/,
  );
  assert.throws(
    () => validate([reference()], [reference({ target: '/run/secrets/db' })]),
    /is that of secret db/,
  );
  assert.throws(() => validate([], [reference()], ['/db']), /is that of a mount/);
  for (const target of ['', '/', '..', 'a//b', '/a/../b', 'a/'])
    assert.throws(() => validate([reference({ target })]), /target .* must be the path of a file/, target);
  assert.throws(() => validate([reference({ signal: 'SIGNOPE' })]), /secret: signal: "SIGNOPE" is no signal/);
  assert.throws(() => validate([reference({ signal: 'HUP', version: 2 })]), /version=2 never gets one/);
  assert.throws(() => validate([reference({ mode: 0o10000 })]), /mode 10000/);
});
