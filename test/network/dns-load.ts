// `dns-load.ts SECONDS IN_FLIGHT`: asks 127.0.0.11 for "web" over and over, so many questions at a time; prints how many
// were answered.

import { createSocket } from 'node:dgram';

const [seconds = 0, inFlight = 0] = process.argv.slice(2).map(Number);
const ID_COUNT = 0x10000;
const query = Buffer.from([0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 119, 101, 98, 0, 0, 1, 0, 1]);
const socket = createSocket('udp4');
let sent = 0;
let answered = 0;

function ask(): void {
  const message = Buffer.from(query);
  message.writeUInt16BE(sent++ % ID_COUNT);
  socket.send(message);
}

socket.on('message', () => {
  answered++;
  ask();
});
socket.connect(53, '127.0.0.11', () => {
  console.log('ready');
  for (let index = 0; index < inFlight; index++) ask();
  setTimeout(() => {
    console.log(answered);
    process.exit();
  }, seconds * 1000);
});
