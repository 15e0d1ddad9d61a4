// How a manager begins and ends when things go wrong around it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../node/system-clock.ts';
import { ControlService } from '../proto/generated/control.ts';
import { createClient, openChannel } from '../rpc/client.ts';
import { setLogLevel } from '../rpc/logger.ts';
import { aService } from '../test/support/cluster-in-process.ts';
import { eventually } from '../test/support/eventually.ts';
import { x509Tool } from './ca/x509.ts';
import { IdentityHolder } from './identity-holder.ts';
import { type ManagerOptions, runManager } from './manager.ts';

setLogLevel('silent');

async function options(t: TestContext): Promise<ManagerOptions> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'tsw-manager-'));
  t.after(async () => {
    if (isMounted(directory)) execFileSync('umount', [path.join(directory, 'state')]);
    await rm(directory, { recursive: true });
  });
  return {
    stateDirectory: path.join(directory, 'state'),
    controlSocket: path.join(directory, 'control.sock'),
    managerSocket: path.join(directory, 'manager.sock'),
    nodeId: 'n1',
    clusterId: 'c1',
    advertiseAddress: '127.0.0.1:2377',
    listenAddress: '127.0.0.1:2377',
    founding: { spec: {}, network: {}, availability: 'active', dataPathAddress: '' },
    managers: [],
    unlockKeys: [],
    tool: x509Tool,
    identity: new IdentityHolder(),
    clock: systemClock,
    random: Math.random,
  };
}

function isMounted(directory: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8').includes(directory);
}

test('a manager that is told to end while it starts ends, wherever it is', async (t) => {
  const config = await options(t);
  for (let turns = 0; turns < 40; turns++) {
    const stop = new AbortController();
    const manager = runManager(config, stop.signal);
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
    stop.abort();
    await manager;
  }
});

test('a manager that gets only one of its sockets gives it back', async (t) => {
  const config = await options(t);
  mkdirSync(config.controlSocket);

  await assert.rejects(runManager(config, new AbortController().signal));

  const isListening = await new Promise<boolean>((resolve) => {
    const socket = connect(config.managerSocket);
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
  });
  assert.equal(isListening, false);
});

const skip = process.getuid?.() === 0 ? false : 'needs root';
test('a manager whose disk is full refuses changes, keeps what it has, and goes on when there is room', {
  skip,
}, async (t) => {
  const config = await options(t);
  mkdirSync(config.stateDirectory);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', config.stateDirectory]);
  const stop = new AbortController();
  const ended = runManager(config, stop.signal);
  const channel = openChannel(`unix://${config.controlSocket}`);
  t.after(() => channel.close());
  const control = createClient(ControlService, channel);
  await eventually(() => control.getCluster({}));
  const filler = path.join(config.stateDirectory, 'filler');
  writeFileSync(filler, Buffer.alloc(12 * 2 ** 20));
  const args = ['x'.repeat(100_000)];
  let stored = 0;
  const create = () =>
    control.createService({ spec: aService(`s${stored}`, { replicas: 0, container: { args } }) });

  const fill = async () => {
    for (; stored < 500; stored++) await create();
  };
  await assert.rejects(fill(), { code: 'resource-exhausted', message: /disk/ });
  assert.ok(stored > 0);
  assert.equal((await control.listServices({})).services.length, stored);

  rmSync(filler);
  // What was refused may have been in the log already, and is stored then.
  await eventually(() =>
    control.createService({ spec: aService('after', { replicas: 0, container: { args } }) }),
  );
  const names = (await control.listServices({})).services.map(({ service }) => service?.spec.name);
  for (let index = 0; index < stored; index++) assert.ok(names.includes(`s${index}`), `s${index} is lost`);
  stop.abort();
  await ended;
});
