import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../core/clock.ts';
import { emptyTaskStatus, type TaskState } from '../../core/generated/objects.ts';
import type { StatusBatch } from '../../proto/generated/dispatcher.ts';
import { StatusReporter } from './status-reporter.ts';

const status = (state: TaskState) => ({ ...emptyTaskStatus, state });

function aReporter() {
  const clock = new FakeClock();
  const sent: StatusBatch[] = [];
  const reporter = new StatusReporter(clock, [], (batch) => sent.push(batch));
  const shown = () =>
    sent.map(({ updates }) => updates.map(({ taskId, status: { state } }) => `${taskId} ${state}`));
  return { clock, reporter, sent, shown };
}

test('a lone status goes at once', () => {
  const { reporter, shown } = aReporter();
  reporter.report('a', status('running'));
  assert.deepEqual(shown(), [['a running']]);
});

test('what comes before the acknowledgement waits for it, and only the latest of each task goes', () => {
  const { clock, reporter, sent, shown } = aReporter();
  reporter.report('a', status('accepted'));
  clock.advance(100);
  reporter.report('a', status('preparing'));
  reporter.report('b', status('accepted'));
  reporter.report('a', status('ready'));
  assert.equal(sent.length, 1);
  reporter.acknowledge(1);
  assert.deepEqual(shown()[1], ['a ready', 'b accepted']);
});

test('soon after a batch the next one waits to be worth it', () => {
  const { clock, reporter, sent, shown } = aReporter();
  reporter.report('a', status('accepted'));
  reporter.acknowledge(1);
  reporter.report('a', status('preparing'));
  reporter.report('b', status('accepted'));
  assert.equal(sent.length, 1);
  clock.advance(25);
  assert.deepEqual(shown()[1], ['a preparing', 'b accepted']);
});

test('a clock that is set back or ahead holds no status up', () => {
  for (const jumpMs of [-3_600_000, -10, 3_600_000]) {
    const { clock, reporter, shown } = aReporter();
    reporter.report('a', status('accepted'));
    reporter.acknowledge(1);
    clock.setBy(jumpMs);
    reporter.report('a', status('preparing'));
    clock.advance(25);
    assert.deepEqual(shown()[1], ['a preparing'], `${jumpMs}`);
  }
});

test('an acknowledgement of another batch changes nothing, and a closed reporter sends nothing', () => {
  const { clock, reporter, sent } = aReporter();
  reporter.report('a', status('accepted'));
  reporter.acknowledge(7);
  clock.advance(100);
  reporter.report('a', status('ready'));
  assert.equal(sent.length, 1);
  reporter.close();
  reporter.acknowledge(1);
  clock.advance(100);
  assert.equal(sent.length, 1);
});
