import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from './errors.ts';
import { parseImageReference } from './image-reference.ts';

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`;

test('a name is read into registry, repository, tag and digest as Docker reads it', () => {
  const table: [text: string, normalized: string, familiar: string][] = [
    ['nginx', 'docker.io/library/nginx:latest', 'nginx:latest'],
    ['nginx:alpine', 'docker.io/library/nginx:alpine', 'nginx:alpine'],
    ['bitnami/redis', 'docker.io/bitnami/redis:latest', 'bitnami/redis:latest'],
    ['library/nginx', 'docker.io/library/nginx:latest', 'nginx:latest'],
    ['library/a/b', 'docker.io/library/a/b:latest', 'library/a/b:latest'],
    ['docker.io/nginx', 'docker.io/library/nginx:latest', 'nginx:latest'],
    ['index.docker.io/library/nginx:1', 'docker.io/library/nginx:1', 'nginx:1'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['localhost:5000/team/app:1.0', 'localhost:5000/team/app:1.0', 'localhost:5000/team/app:1.0'],
    ['127.0.0.1:5000/app', '127.0.0.1:5000/app:latest', '127.0.0.1:5000/app:latest'],
    ['[::1]:5000/app:x', '[::1]:5000/app:x', '[::1]:5000/app:x'],
    ['quay.io/a/b/c', 'quay.io/a/b/c:latest', 'quay.io/a/b/c:latest'],
    ['Registry/app', 'Registry/app:latest', 'Registry/app:latest'],
    [`nginx@${digest}`, `docker.io/library/nginx@${digest}`, `nginx@${digest}`],
    [`nginx:1@${digest}`, `docker.io/library/nginx:1@${digest}`, `nginx:1@${digest}`],
    ['a__b/c-d--e.f:V_1.2-x', 'docker.io/a__b/c-d--e.f:V_1.2-x', 'a__b/c-d--e.f:V_1.2-x'],
  ];
  for (const [text, normalized, familiar] of table) {
    const reference = parseImageReference(text);
    assert.equal(reference.normalized, normalized, text);
    assert.equal(reference.familiar, familiar, text);
  }
});

test('what is no image name is refused', () => {
  const table = [
    '',
    ':tag',
    'nginx:',
    'Nginx',
    'localhost:5000/Team/app',
    'a//b',
    '/a',
    'a/',
    '-a',
    'a..b',
    'a:b:c',
    'nginx:tag with blank',
    `nginx:${'x'.repeat(129)}`,
    'nginx@sha256:abc',
    `nginx@sha512:${'a'.repeat(128)}`,
    `nginx@${digest.toUpperCase()}`,
    'a'.repeat(64),
    'x'.repeat(256),
    'exa_mple.com/app',
    'https://example.com/app',
  ];
  for (const text of table) {
    assert.throws(
      () => parseImageReference(text),
      (error) => hasCode(error, 'invalid-argument') && error.message.startsWith('invalid reference format'),
      text,
    );
  }
});

test('reading the normalized or the familiar form again changes nothing', () => {
  const part = fc.stringMatching(/^[a-z0-9]{1,8}(-[a-z0-9]{1,4})?$/);
  const registry = fc.constantFrom('', 'docker.io/', 'localhost/', 'example.com:5000/');
  const suffix = fc.constantFrom('', ':v1', `@${digest}`, `:v1@${digest}`);
  fc.assert(
    fc.property(registry, fc.array(part, { minLength: 1, maxLength: 3 }), suffix, (host, parts, end) => {
      const reference = parseImageReference(host + parts.join('/') + end);

      assert.deepEqual(parseImageReference(reference.normalized), reference);
      assert.deepEqual(parseImageReference(reference.familiar), reference);
    }),
  );
});
