import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deleteConnections } from './conntrack.ts';
import {
  decodeAttributes,
  decodeError,
  decodeMessages,
  encodeAttributes,
  encodeMessage,
  netlinkFlags,
  text,
  textOf,
  uint32,
} from './netlink.ts';
import { addTable, interfaceIs } from './nftables.ts';
import { addElements, deleteElements, portField, protocolPortKey } from './nftables-maps.ts';
import {
  addAddress,
  addRoute,
  createVeth,
  decodeAddress,
  decodeLink,
  decodeRoute,
  MAIN_TABLE,
  setLinkUp,
} from './rtnetlink.ts';

function hex(...parts: string[]): Buffer {
  return Buffer.from(parts.join('').replaceAll(' ', ''), 'hex');
}

test('attributes are padded to four bytes and nested ones are marked', () => {
  const bytes = encodeAttributes([
    [3, text('lo')],
    [18, [[1, uint32(7)]]],
  ]);

  assert.deepEqual(bytes, hex('0700 0300 6c6f00 00', '0c00 1280', '0800 0100 07000000'));
});

test('decoded attributes are what was encoded, without the mark of nesting', () => {
  const attributes = decodeAttributes(
    encodeAttributes([
      [3, text('eth0')],
      [18, [[1, uint32(7)]]],
    ]),
  );

  assert.equal(textOf(attributes.get(3)!), 'eth0');
  assert.equal(decodeAttributes(attributes.get(18)!).get(1)!.readUInt32LE(), 7);
});

test('a message carries its length without padding, the request flag and its sequence number', () => {
  const message = { what: 'test', type: 16, flags: netlinkFlags.create, body: Buffer.from([1, 2, 3]) };

  const bytes = encodeMessage(message, 5, netlinkFlags.ack);

  assert.deepEqual(bytes, hex('13000000 1000 0504 05000000 00000000', '010203 00'));
  const [decoded] = decodeMessages(bytes);
  assert.deepEqual(decoded, { type: 16, flags: 0x405, sequence: 5, body: Buffer.from([1, 2, 3]) });
});

test('a truncated datagram ends the list of messages', () => {
  assert.deepEqual(decodeMessages(hex('0800 0000 0000')), []);
  assert.deepEqual(decodeMessages(Buffer.alloc(16)), []);
});

test("an error is read with the kernel's explanation", () => {
  const request = encodeMessage({ what: 'test', type: 16, flags: 0, body: Buffer.alloc(4) }, 1);
  const body = Buffer.concat([hex('efffffff'), request, encodeAttributes([[1, text('no such thing')]])]);
  const flags = netlinkFlags.hasExtendedAck;

  assert.deepEqual(decodeError({ type: 2, flags, sequence: 1, body }), {
    errno: 17,
    explanation: 'no such thing',
  });
});

test('an acknowledgement has errno 0', () => {
  const reply = { type: 2, flags: netlinkFlags.capped, sequence: 1, body: Buffer.alloc(20) };

  assert.deepEqual(decodeError(reply), { errno: 0, explanation: '' });
});

test('a veth message names both ends and the namespace of the peer', () => {
  const { body } = createVeth({
    name: 'v1',
    index: 1002,
    mtu: 1450,
    peer: { name: 'eth0', index: 2, namespaceFd: 9 },
  });

  assert.deepEqual(decodeLink(body), {
    index: 1002,
    name: 'v1',
    mtu: 1450,
    isUp: false,
    alias: '',
  });
  const data = decodeAttributes(decodeAttributes(decodeAttributes(body, 16).get(18)!).get(2)!);
  const peer = data.get(1)!;
  assert.deepEqual(decodeLink(peer), { index: 2, name: 'eth0', mtu: 1450, isUp: false, alias: '' });
  assert.equal(decodeAttributes(peer, 16).get(28)!.readUInt32LE(), 9);
});

test('a link message changes only the flag that it sets', () => {
  assert.deepEqual(setLinkUp(2, false).body, hex('00000000 02000000 00000000 01000000'));
});

test('routes and addresses are read as they were written', () => {
  const destination = Buffer.from([10, 186, 0, 0]);
  const route = addRoute({ destination, prefixLength: 16, linkIndex: 4 });
  const address = addAddress({ linkIndex: 4, address: destination, prefixLength: 31 });

  assert.deepEqual(decodeRoute(route.body), {
    table: MAIN_TABLE,
    destination,
    prefixLength: 16,
    linkIndex: 4,
    gateway: undefined,
    isUnreachable: false,
  });
  assert.deepEqual(decodeAddress(address.body), {
    linkIndex: 4,
    address: destination,
    prefixLength: 31,
    isGlobal: true,
  });
});

test('an nf_tables message carries subsystem, command and family', () => {
  const message = addTable('t');

  assert.equal(message.type, 0x0a00);
  assert.deepEqual(message.body, hex('02000000', '0600 0100 7400 0000'));
});

test('a port map element is a padded key and a padded value; its deletion needs the key only', () => {
  const key = protocolPortKey(6, 8080);
  const value = Buffer.concat([Buffer.from([10, 186, 0, 2]), portField(80)]);

  const [added] = addElements('t', 'm', [{ key, value }]);
  const [deleted] = deleteElements('t', 'm', [key]);

  const keyBytes = hex('06000000 1f900000');
  const valueBytes = hex('0aba0002 00500000');
  assert.ok(added!.body.includes(keyBytes) && added!.body.includes(valueBytes));
  assert.ok(deleted!.body.includes(keyBytes) && !deleted!.body.includes(valueBytes));
});

test('many elements are spread over messages that the format can carry', () => {
  const elements = Array.from({ length: 2500 }, (_, port) => ({ key: protocolPortKey(17, port) }));

  assert.equal(addElements('t', 'm', elements).length, 3);
});

test('an interface name is compared with its padding, so that no longer name matches', () => {
  const [, comparison] = interfaceIs('inputName', 'up0');

  assert.ok(encodeAttributes([comparison!]).includes(hex('75703000 00000000 00000000 00000000')));
});

test('a deletion of connections is filtered: version 1, and a flag for each field given', () => {
  const source = Buffer.from([10, 186, 0, 2]);

  const { body } = deleteConnections('reply', { source, protocolNumber: 17, sourcePort: 53 });

  assert.equal(body[1], 1);
  const filter = decodeAttributes(decodeAttributes(body, 4).get(25)!);
  assert.equal(filter.get(1)!.readUInt32LE(), 0);
  assert.equal(filter.get(2)!.readUInt32LE(), 0b011001);
});
