// A node whose start goes wrong says why, and leaves nothing half-alive.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { emptyInitRequest } from '../../proto/generated/node.ts';
import { eventually } from '../support/eventually.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { freePort } from '../support/real-registry.ts';

const skip = whyNoRealNode() ?? false;

test('a port that is taken ends an init at once, with its name, and the node is free for another', {
  skip,
}, async () => {
  const holder = createServer().listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const { port } = holder.address() as AddressInfo;
  await using node = await RealNode.start();
  const init = (listenAddress: string) =>
    node.node.init({ ...emptyInitRequest, advertiseAddress: '127.0.0.1', listenAddress });

  await assert.rejects(init(`127.0.0.1:${port}`), {
    message: new RegExp(`the manager ended \\(cannot listen on 127\\.0\\.0\\.1:${port}: .*EADDRINUSE`),
  });

  assert.equal((await node.node.info({})).state, 'inactive');
  holder.close();
  await init(`127.0.0.1:${await freePort()}`);
});

test('a manager whose log is damaged is reported with the file and the way out', { skip }, async () => {
  await using node = await RealNode.start();
  await node.init();
  await node.stopDaemon();
  const directory = path.join(node.dataRoot, 'manager', 'log');
  const [name = ''] = (await readdir(directory)).filter((file) => file.endsWith('.seg'));
  const file = path.join(directory, name);
  const log = await readFile(file);
  log[30] = (log[30] ?? 0) ^ 0xff;
  await writeFile(file, log);

  await node.startDaemon();

  const { state, error } = await eventually(async () => {
    const info = await node.node.info({});
    assert.notEqual(info.error, '');
    return info;
  });
  assert.equal(state, 'error');
  assert.match(error, /log-\d+\.seg is damaged at byte \d+.*Restore the directory from a backup/);
  assert.match(await node.daemonLog(), /"msg":"manager ended, will be started again"/);
  // An operator gives the cluster up from here.
  await node.node.leave({ force: true });
  assert.equal((await node.node.info({})).state, 'inactive');
});

test('a member that cannot serve its metrics ends, with its manager', { skip }, async () => {
  await using node = await RealNode.start();
  await node.init();
  await node.stopDaemon();
  const holder = createServer().listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const { port } = holder.address() as { port: number };

  try {
    const daemon = spawn(
      process.execPath,
      [path.join(import.meta.dirname, '../../bin/tsswarmd.ts')].concat(
        `--data-root=${node.dataRoot}`,
        `--run-dir=${node.runDir}`,
        `--metrics-addr=127.0.0.1:${port}`,
      ),
      { stdio: ['ignore', 'ignore', 'pipe'], timeout: 30_000, killSignal: 'SIGKILL' },
    );
    let said = '';
    daemon.stderr.on('data', (chunk) => {
      said += chunk;
    });
    const [code] = await once(daemon, 'close');

    assert.equal(code, 1, said);
    assert.match(said, /metrics-addr: cannot listen on 127\.0\.0\.1:\d+: EADDRINUSE/);
  } finally {
    holder.close();
  }
});

test('a new cluster begins empty, whatever an interrupted leave has left', { skip }, async () => {
  await using node = await RealNode.start();
  const leftover = path.join(node.dataRoot, 'manager', 'log');
  await mkdir(leftover, { recursive: true });
  await writeFile(path.join(leftover, 'log-0000000000000001.seg'), Buffer.alloc(100, 1));

  await node.init();

  await assert.rejects(node.init(), { code: 'failed-precondition' });
  assert.equal((await node.control.listNodes({})).nodes.length, 1);
});
