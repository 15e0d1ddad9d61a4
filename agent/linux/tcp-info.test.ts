import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { openTlsChannel } from '../../rpc/client.ts';
import { eventually } from '../../test/support/eventually.ts';
import { silenceMs } from './tcp-info.ts';

test('the silence of a connection grows, and ends with what comes', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const channel = openTlsChannel(
    `127.0.0.1:${(server.address() as AddressInfo).port}`,
    credentials.createInsecure(),
  );
  assert.equal(channel.descriptor?.(), undefined);
  const connected = once(server, 'connection') as Promise<[Socket]>;
  channel.grpc.getChannel().getConnectivityState(true);
  const [other] = await connected;
  const silence = () => {
    const descriptor = channel.descriptor?.();
    assert.ok(descriptor !== undefined);
    return silenceMs(descriptor);
  };
  try {
    await eventually(() => channel.descriptor?.() !== undefined);
    await eventually(() => silence() >= 100);
    // A whole frame of settings, and what comes of it.
    other.write(Buffer.from('000000040000000000', 'hex'));
    await eventually(() => silence() < 100);
  } finally {
    channel.close();
    other.destroy();
    server.close();
  }
  await eventually(() => channel.descriptor?.() === undefined);
});
