import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { FakeClock } from '../core/clock.ts';
import { describeCertificate, verifyChain } from '../rpc/certificates.ts';
import { aSubject, HOUR_MS } from '../test/support/cluster-authority.ts';
import { eventually } from '../test/support/eventually.ts';
import { CertificateProcess } from './certificate-process.ts';

const program = path.join(import.meta.dirname, '../bin/tsswarmd.ts');
const nowMs = Date.now();

/** Waits until there is no such process. */
const untilGone = (pid: number | undefined) =>
  eventually(() => {
    assert.ok(pid !== undefined);
    try {
      process.kill(pid, 0);
      return false;
    } catch (error) {
      return (error as { code?: string }).code === 'ESRCH';
    }
  });

test('the tool does its work in another process', async () => {
  using tool = new CertificateProcess({ program });
  assert.equal(tool.pid, undefined, 'which is there only when it is needed');
  const [oldRoot, root, { requestPem }] = await Promise.all([
    tool.createRoot({ clusterId: 'c', nowMs }),
    tool.createRoot({ clusterId: 'c', nowMs, lifeMs: 100 * HOUR_MS }),
    tool.createKeyAndRequest(),
  ]);
  const certificatePem = await tool.issue({ requestPem, root, subject: aSubject(), nowMs, lifeMs: HOUR_MS });
  const cross = await tool.crossSign({ newRootPem: root.certificatePem, oldRoot, nowMs });
  assert.equal(describeCertificate(certificatePem).nodeId, 'node1');
  verifyChain(certificatePem + cross, oldRoot.certificatePem, nowMs);
});

test('a refusal comes through as it is, and the process goes on', async () => {
  using tool = new CertificateProcess({ program });
  const root = await tool.createRoot({ clusterId: 'c', nowMs });
  const first = tool.pid;
  const issue = tool.issue({ requestPem: 'none', root, subject: aSubject(), nowMs, lifeMs: HOUR_MS });
  await assert.rejects(issue, {
    name: 'SwarmError',
    code: 'invalid-argument',
    message: /certificate request/,
  });
  await tool.createKeyAndRequest();
  assert.equal(tool.pid, first);
});

test('the process ends a second after its last use, and the next call starts another', async () => {
  const clock = new FakeClock();
  using tool = new CertificateProcess({ program, clock });
  await tool.createKeyAndRequest();
  const first = tool.pid;
  clock.advance(800);
  await tool.createKeyAndRequest();
  clock.advance(800);
  assert.equal(tool.pid, first, 'a call in between lets it live on');
  clock.advance(200);
  assert.equal(tool.pid, undefined);
  await untilGone(first);
  await tool.createKeyAndRequest();
  assert.notEqual(tool.pid, first);
});

test('a process that dies fails the calls that wait for it, and only those', async () => {
  using tool = new CertificateProcess({ program });
  await tool.createKeyAndRequest();
  const { pid } = tool;
  assert.ok(pid !== undefined);
  process.kill(pid, 'SIGSTOP');
  const call = tool.createKeyAndRequest();
  process.kill(pid, 'SIGKILL');
  await assert.rejects(call, { code: 'unavailable', message: /ended: killed by SIGKILL/ });
  assert.ok((await tool.createKeyAndRequest()).keyPem);
});

test('a process that does not answer is ended after half a minute', async () => {
  const clock = new FakeClock();
  using tool = new CertificateProcess({ program, clock });
  await tool.createKeyAndRequest();
  const { pid } = tool;
  assert.ok(pid !== undefined);
  process.kill(pid, 'SIGSTOP');
  const call = tool.createKeyAndRequest();
  clock.advance(30_000);
  await assert.rejects(call, { code: 'unavailable' });
  await untilGone(pid);
});

test('a program that cannot be started is an error of the call', async () => {
  using tool = new CertificateProcess({ program: '/nowhere/tsswarmd' });
  await assert.rejects(tool.createKeyAndRequest(), { code: 'unavailable', message: /exit code 1/ });
});

test('who lets go of the tool lets the process end, with its answers given', async () => {
  const tool = new CertificateProcess({ program });
  const call = tool.createKeyAndRequest();
  const { pid } = tool;
  tool[Symbol.dispose]();
  assert.ok((await call).requestPem);
  await untilGone(pid);
});
