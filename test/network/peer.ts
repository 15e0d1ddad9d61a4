// A program for a simulated container or client. `serve PORT [ADDRESS]` answers on TCP and UDP: a TCP connection is greeted with
// the address of its client, a datagram is answered with it, and both are echoed. `connect PROTOCOL HOST PORT` sends
// the lines of its input and prints what comes back. Both print "ready" first.

import { createSocket } from 'node:dgram';
import { createConnection, createServer, isIPv6 } from 'node:net';
import { createInterface } from 'node:readline';

const [mode = '', ...rest] = process.argv.slice(2);

if (mode === 'serve') serve(Number(rest[0]), rest[1] ?? '0.0.0.0');
else if (rest[0] === 'tcp') connectTcp(rest[1] ?? '', Number(rest[2]));
else connectUdp(rest[1] ?? '', Number(rest[2]));

function serve(port: number, address: string): void {
  const datagrams = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  datagrams.on('message', (message, from) => {
    datagrams.send(`${from.address} ${message}`, from.port, from.address);
  });
  const connections = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.write(`${socket.remoteAddress}\n`);
    socket.pipe(socket);
  });
  datagrams.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? error.message));
  datagrams.bind(port, address, () => connections.listen(port, address, () => console.log('ready')));
}

function connectTcp(host: string, port: number): void {
  const socket = createConnection({ host, port }, () => console.log('ready'));
  socket.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? error.message));
  socket.on('close', () => process.exit());
  socket.pipe(process.stdout);
  process.stdin.pipe(socket);
}

function connectUdp(host: string, port: number): void {
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  socket.on('message', (message) => console.log(message.toString()));
  socket.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? error.message));
  socket.connect(port, host, () => {
    console.log('ready');
    createInterface(process.stdin)
      .on('line', (line) => socket.send(line))
      .on('close', () => process.exit());
  });
}

function fail(reason: string): void {
  console.log(reason);
  process.exit();
}
