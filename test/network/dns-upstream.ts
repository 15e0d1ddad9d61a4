// The name server of the world outside, in tests: "far.example" has an address, "big.example" many; nothing else exists.

import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { FrameReader, frame } from '../../agent/network/overlay/dns-frame.ts';
import { answerQuery, Zone } from '../../agent/network/overlay/dns-zone.ts';

const zone = new Zone([]);
zone.update([
  [
    { name: 'far.example', addresses: ['203.0.113.7'] },
    { name: 'big.example', addresses: Array.from({ length: 100 }, (_, index) => `203.0.113.${index}`) },
  ],
]);

function answer(query: Buffer, transport: 'udp' | 'tcp'): Buffer {
  const bytes = answerQuery(query, { zones: [zone], mayForward: false }, transport);
  if (!Buffer.isBuffer(bytes)) throw new Error(`no answer to ${query.toString('hex')}`);
  return bytes;
}

const datagrams = createSocket('udp4');
datagrams.on('message', (query, { address, port }) => datagrams.send(answer(query, 'udp'), port, address));
const connections = createServer((socket) => {
  const reader = new FrameReader();
  socket.on('error', () => socket.destroy());
  socket.on('data', (data) => {
    for (const query of reader.push(data)) socket.write(frame(answer(query, 'tcp')));
  });
});
datagrams.bind(53, () => connections.listen(53, '0.0.0.0', () => console.log('ready')));
