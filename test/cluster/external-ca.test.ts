// A cluster whose root key is with an authority outside: Debian's CFSSL.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../../core/assert.ts';
import { aRoot } from '../support/cluster-authority.ts';
import { eventually } from '../support/eventually.ts';
import { missingForCfssl, startCfssl } from '../support/real-cfssl.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';

const skip = whyNoRealNode() ?? missingForCfssl;

test('an authority outside signs for a node, and when it is away the node says so', { skip }, async () => {
  await using node = await RealNode.start();
  await node.init();
  const root = await aRoot();
  const rotate = (url: string) =>
    node.control.rotateAuthority({
      certificate: root.certificatePem,
      key: '',
      externalCas: [{ protocol: 'cfssl', url, caCertificate: '', options: {} }],
      certificateLifeMs: 0,
    });

  await rotate('http://127.0.0.1:9/api/v1/cfssl/sign');
  const why = await eventually(async () => (await node.node.info({})).error || undefined);
  assert.match(why, /127\.0\.0\.1:9/);
  assert.equal((await node.control.getAuthority({})).rotation?.nodesDone, 0);

  await using cfssl = await startCfssl(root);
  await rotate(cfssl.url);
  const authority = await eventually(async () => {
    const now = await node.control.getAuthority({});
    return now.rotation === undefined ? now : undefined;
  }, 30_000);
  assert.equal(authority.certificate, root.certificatePem);
  await eventually(async () => {
    const { nodes } = await node.control.listNodes({});
    const { trust } = defined(nodes[0], 'the node').description;
    assert.deepEqual(trust.roots, [trust.issuer], 'it shows the new root and believes only that');
    return true;
  });
});
