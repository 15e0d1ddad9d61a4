import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyMount, type Mount } from './generated/objects.ts';
import { validateMounts } from './validate-mounts.ts';

const mount = (change: Partial<Mount>): Mount => ({ ...emptyMount, target: '/data', ...change });
const volume = (options: Readonly<Record<string, string>>, name = 'local') =>
  mount({ volumeDriver: { name, options } });

test('mounts of every type are accepted', () => {
  validateMounts([mount({}), mount({ source: 'data', target: '/b', subpath: 'a/b', volumeNoCopy: true })]);
  validateMounts([mount({ type: 'image', source: 'nginx:alpine', subpath: 'etc' })]);
  validateMounts([mount({ type: 'bind', source: '/a', readOnly: true, bindRecursive: 'readonly' })]);
  validateMounts([mount({ type: 'tmpfs', tmpfsOptions: ['exec', 'uid=1000'] })]);
  validateMounts([volume({ type: 'tmpfs', device: 'tmpfs', o: 'size=1m' })]);
  validateMounts([volume({ type: 'none', device: '/srv', o: 'bind' }), mount({ target: '/b' })]);
});

test('what a mount cannot be is refused by name', () => {
  const cases: [mounts: Mount[], message: RegExp][] = [
    [[mount({ target: '/' })], /^mount: target "\/" must be an absolute path below \//],
    [[mount({}), mount({ target: '/data/' })], /^mount: target "\/data\/" is used twice/],
    [[mount({ source: '../etc' })], /^mount: source: "..\/etc" is not a valid volume name/],
    [[mount({ subpath: 'a/../../b' })], /^mount: subpath "a\/..\/..\/b" must be a relative path/],
    [[mount({ type: 'bind', source: '/a', subpath: 'a' })], /^mount: a subpath is of a volume or an image/],
    [[mount({ type: 'image' })], /^mount: source of an image mount must name an image/],
    [[mount({ bindCreateSource: true })], /^mount: a bind option goes with type=bind only/],
    [
      [mount({ type: 'bind', source: '/a', volumeNoCopy: true })],
      /^mount: a volume option goes with type=volume/,
    ],
    [
      [mount({ type: 'bind', source: '/a', bindRecursive: 'readonly' })],
      /^mount: bind-recursive=readonly needs/,
    ],
    [[volume({}, 'rexray')], /^mount: volume-driver: "rexray" is not supported: must be "local"/],
    [[volume({ colour: 'red' })], /^mount: volume-opt: invalid option "colour"/],
    [[volume({ type: 'tmpfs' })], /^mount: volume-opt: device is missing/],
    [[volume({ device: '/srv' })], /^mount: volume-opt: type is missing/],
    [[mount({ type: 'tmpfs', tmpfsOptions: ['a,b'] })], /^tmpfs: option "a,b"/],
  ];
  for (const [mounts, message] of cases)
    assert.throws(() => validateMounts(mounts), { code: 'invalid-argument', message });
});
