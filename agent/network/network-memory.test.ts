// What a node writes down of its networks, and reads again.

import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type Assignments,
  emptyAssignments,
  emptyNetworkEndpoint,
  emptyNetworkUpdate,
} from '../../proto/generated/dispatcher.ts';
import { createLogger, setLogLevel } from '../../rpc/logger.ts';
import { NetworkMemory } from './network-memory.ts';

const log = createLogger('test.network-memory');
setLogLevel('silent');

/** A message that names a task. */
function said(taskId: string, complete = false): Assignments {
  const endpoints = [{ ...emptyNetworkEndpoint, taskId }];
  return {
    ...emptyAssignments,
    complete,
    networks: [{ ...emptyNetworkUpdate, networkId: 'net', complete, endpoints }],
  };
}

function named(messages: readonly Assignments[]): string[] {
  return messages.flatMap(({ networks }) =>
    networks.flatMap(({ endpoints }) => endpoints.map(({ taskId }) => taskId)),
  );
}

function fileFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'network-memory-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'memory');
}

test('says again what was noted, in its order', (t) => {
  const file = fileFor(t);
  const memory = new NetworkMemory(file, log);
  assert.deepEqual(memory.recall(), []);
  memory.note(said('a', true), () => said('whole', true));
  memory.note(said('b'), () => said('unused'));
  memory.note({ ...emptyAssignments, removedNodeIds: ['n'] }, () => said('unused'));
  memory.note(emptyAssignments, () => said('unused'));
  const again = new NetworkMemory(file, log).recall();
  assert.deepEqual(named(again), ['whole', 'b']);
  assert.deepEqual(
    again.map(({ removedNodeIds }) => removedNodeIds),
    [[], [], ['n']],
  );
  // The next process begins with the whole.
  const next = new NetworkMemory(file, log);
  next.recall();
  next.note(said('c'), () => said('whole of it', true));
  assert.deepEqual(named(new NetworkMemory(file, log).recall()), ['whole of it']);
});

test('a record that was cut off while it was written is not there; those before it are', (t) => {
  const file = fileFor(t);
  const memory = new NetworkMemory(file, log);
  memory.note(said('a', true), () => said('a', true));
  const whole = statSync(file).size;
  memory.note(said('b'), () => said('unused'));
  const size = statSync(file).size;
  const bytes = readFileSync(file);
  for (let length = 0; length < size; length++) {
    writeFileSync(file, bytes);
    truncateSync(file, length);
    assert.deepEqual(named(new NetworkMemory(file, log).recall()), length < whole ? [] : ['a'], `${length}`);
  }
});

test('what follows garbage is not believed, and the next message mends the file', (t) => {
  const file = fileFor(t);
  const memory = new NetworkMemory(file, log);
  memory.note(said('a', true), () => said('a', true));
  appendFileSync(file, Buffer.from([0, 0, 0, 3, 0xff, 0xff, 0xff, 7]));
  const next = new NetworkMemory(file, log);
  assert.deepEqual(named(next.recall()), ['a']);
  next.note(said('b'), () => said('all', true));
  assert.deepEqual(named(new NetworkMemory(file, log).recall()), ['all']);
});

test('grows to a few times the whole, however much is said', (t) => {
  const file = fileFor(t);
  const memory = new NetworkMemory(file, log);
  let largest = 0;
  for (let index = 0; index < 20_000; index++) {
    memory.note(said(`task-${index}`), () => said('whole', true));
    largest = Math.max(largest, statSync(file).size);
  }
  assert.ok(largest < 300 * 1024, `${largest}`);
});

test('a folder that is not there is logged, not thrown', () => {
  const memory = new NetworkMemory('/nonexistent/memory', log);
  memory.note(said('a', true), () => said('a', true));
});
