import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { endIdleShims } from './idle-shims.ts';

/** A process that looks like a shim of this namespace; the script says "up" when it is as it should be. */
async function aShim(namespace: string, script: string) {
  const child = spawn('/bin/sh', ['-c', script, '-namespace', namespace], {
    argv0: '/usr/bin/containerd-shim-runc-v2',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

test('an empty shim of the namespace is ended; one with a container, and one of another namespace, are not', async () => {
  const namespace = `tsswarm-test${process.pid}`;
  const idle = await aShim(namespace, 'echo up; read line');
  const busy = await aShim(namespace, 'sleep 3 >/dev/null & echo up; wait; :');
  const foreign = await aShim(`${namespace}x`, 'echo up; read line');
  const ended = once(idle, 'exit');

  try {
    assert.deepEqual(endIdleShims(namespace), [idle.pid]);

    await ended;
    assert.deepEqual([busy.exitCode, busy.signalCode], [null, null]);
    assert.deepEqual([foreign.exitCode, foreign.signalCode], [null, null]);
  } finally {
    for (const child of [busy, foreign]) child.kill('SIGKILL');
  }
});
