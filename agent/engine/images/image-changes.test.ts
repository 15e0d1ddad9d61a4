import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../../core/errors.ts';
import { applyChanges } from './image-changes.ts';

test('lines of a Dockerfile become a configuration, later ones win', () => {
  const lines = [
    'CMD ["/app", "-v"]',
    'entrypoint run it',
    'ENV A=1 B="two words" C=\'$x\'',
    'ENV A 2 and more',
    'EXPOSE 80 53/udp',
    'LABEL tier=front made="by \\"hand\\""',
    'USER web:web',
    'VOLUME ["/data", "/a b"]',
    'WORKDIR /srv',
    'STOPSIGNAL SIGINT',
  ];

  assert.deepEqual(applyChanges(lines), {
    Cmd: ['/app', '-v'],
    Entrypoint: ['/bin/sh', '-c', 'run it'],
    Env: ['A=2 and more', 'B=two words', 'C=$x'],
    ExposedPorts: { '80/tcp': {}, '53/udp': {} },
    Labels: { tier: 'front', made: 'by "hand"' },
    User: 'web:web',
    Volumes: { '/data': {}, '/a b': {} },
    WorkingDir: '/srv',
    StopSignal: 'SIGINT',
  });
});

test('a line that is none of them is refused by name', () => {
  for (const line of ['RUN rm -rf /', 'CMD', 'ENV', 'EXPOSE 70000', 'EXPOSE web', '', 'ENV =x'])
    assert.throws(
      () => applyChanges([line]),
      (error) => hasCode(error, 'invalid-argument') && error.message.includes('change'),
      line,
    );
});
