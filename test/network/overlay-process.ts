// A process that has an overlay open, so that a test can kill it. Arguments: run directory, engine id, data path
// address, name server. It answers calls. The namespaces of its containers are pinned where their endpoints say.

import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { createNamespace, isPinnedNamespace, removeNamespace } from '../../agent/linux/namespace.ts';
import { NetlinkSocket } from '../../agent/linux/netlink-socket.ts';
import { networkLog } from '../../agent/log.ts';
import { openOverlay } from '../../agent/network/overlay/kernel-overlay.ts';
import type { OverlayEndpoint, OverlayState } from '../../agent/network/overlay/overlay.ts';
import { answerCalls } from './answer-calls.ts';

const [runDir = '', engineId = '', dataPathAddress = '', nameServer = ''] = process.argv.slice(2);
const overlay = await openOverlay({
  runDir,
  engineId,
  dataPathAddress,
  nameServers: nameServer === '' ? [] : [nameServer],
  logger: networkLog,
});

async function attach(endpoint: OverlayEndpoint): Promise<unknown> {
  if (!isPinnedNamespace(endpoint.namespacePath)) {
    mkdirSync(dirname(endpoint.namespacePath), { recursive: true });
    removeNamespace(endpoint.namespacePath);
    createNamespace(endpoint.namespacePath, () => undefined);
  }
  return overlay.attach(endpoint);
}

async function detach({ id, namespacePath }: OverlayEndpoint): Promise<void> {
  await overlay.detach(id);
  removeNamespace(namespacePath);
}

/** The process is killed in place of its next netlink request but so many. */
async function dieAfter(requests: number): Promise<void> {
  let left = requests;
  const { execute, executeBatch } = NetlinkSocket.prototype;
  const count = (): void => {
    if (left-- === 0) process.kill(process.pid, 'SIGKILL');
  };
  NetlinkSocket.prototype.execute = function (messages) {
    count();
    execute.call(this, messages);
  };
  NetlinkSocket.prototype.executeBatch = function (messages) {
    count();
    executeBatch.call(this, messages);
  };
}

await answerCalls({
  ensure: overlay.ensure.bind(overlay),
  remove: overlay.remove.bind(overlay),
  attach,
  detach,
  apply: ([networkId, state]: [string, OverlayState]) => overlay.apply(networkId, state),
  audit: overlay.audit.bind(overlay),
  repair: overlay.repair.bind(overlay),
  list: overlay.list.bind(overlay),
  dieAfter,
});
