import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parsePrefix } from '../../../core/ip-address.ts';
import { FrameReader, frame } from './dns-frame.ts';
import { answerQuery, type Client, failQuery, Zone } from './dns-zone.ts';

const A = 1;
const PTR = 12;
const AAAA = 28;

const zone = new Zone([parsePrefix('10.0.1.0/24')!]);
const many = Array.from({ length: 300 }, (_, index) => `10.0.${2 + (index >> 8)}.${index & 255}`);
const records = [
  { name: 'Web', addresses: ['10.0.1.2'] },
  { name: 'tasks.web', addresses: ['10.0.1.10', '10.0.1.11', '10.0.1.12'] },
  { name: 'alias', addresses: ['10.0.1.2'] },
  { name: 'idle', addresses: [] },
  { name: 'many', addresses: many },
];
zone.update([records]);
const client: Client = { zones: [zone], mayForward: true };
const inner: Client = { zones: [zone], mayForward: false };

interface Options {
  readonly type?: number;
  readonly class?: number;
  readonly flags?: number;
  readonly udpBytes?: number;
}

function query(name: string, { type = A, class: kind = 1, flags = 0x0100, udpBytes }: Options = {}): Buffer {
  const labels = name.split('.').flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)]);
  const header = Buffer.from([0xab, 0xcd, flags >> 8, flags & 255, 0, 1, 0, 0, 0, 0, 0, udpBytes ? 1 : 0]);
  const opt = udpBytes
    ? Buffer.from([0, 0, 41, udpBytes >> 8, udpBytes & 255, 0, 0, 0, 0, 0, 0])
    : Buffer.alloc(0);
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, type, 0, kind]), opt]);
}

interface Reply {
  readonly code: number;
  readonly addresses: string[];
  readonly isTruncated: boolean;
  readonly hasOpt: boolean;
  readonly bytes: Buffer;
}

function read(bytes: Buffer | 'forward' | undefined, question: Buffer): Reply {
  assert.ok(Buffer.isBuffer(bytes));
  const questionEnd = 12 + question.subarray(12).indexOf(0) + 5;
  const count = bytes.readUInt16BE(6);
  const isAddress = count > 0 && bytes.readUInt16BE(questionEnd + 2) === A;
  return {
    code: bytes[3]! & 0xf,
    addresses: isAddress
      ? Array.from({ length: count }, (_, index) => {
          const start = questionEnd + index * 16 + 12;
          return bytes.subarray(start, start + 4).join('.');
        })
      : [],
    isTruncated: (bytes[2]! & 2) !== 0,
    hasOpt: bytes.readUInt16BE(10) === 1,
    bytes,
  };
}

function ask(name: string, options: Options = {}, transport: 'udp' | 'tcp' = 'udp', who = client): Reply {
  const question = query(name, options);
  return read(answerQuery(question, who, transport), question);
}

test('a name is answered whatever its case, with the question as it was asked', () => {
  const reply = ask('WEB');

  assert.deepEqual(reply.addresses, ['10.0.1.2']);
  assert.ok(reply.bytes.includes('WEB'));
  assert.deepEqual([...reply.bytes.subarray(0, 4)], [0xab, 0xcd, 0x85, 0x80]);
});

test('an existing name without such records is not "no such name": resolvers would give up on it', () => {
  for (const reply of [ask('web', { type: AAAA }), ask('idle')]) {
    assert.equal(reply.code, 0);
    assert.equal(reply.bytes.readUInt16BE(6), 0);
  }
});

test('all addresses are told, beginning anywhere', () => {
  const firsts = new Set<string>();
  for (let round = 0; round < 100; round++) {
    const { addresses } = ask('tasks.web');
    assert.deepEqual([...addresses].sort(), ['10.0.1.10', '10.0.1.11', '10.0.1.12']);
    firsts.add(addresses[0]!);
  }
  assert.equal(firsts.size, 3);
});

test('an answer that is too long has what fits and says so; by TCP all of it comes', () => {
  const plain = ask('many');
  assert.ok(plain.isTruncated && plain.bytes.length <= 512 && plain.addresses.length === 30);

  const extended = ask('many', { udpBytes: 4096 });
  assert.ok(extended.isTruncated && extended.hasOpt && extended.bytes.length <= 1232);
  assert.ok(extended.addresses.length > 70);
  assert.ok(ask('many', { udpBytes: 100 }).bytes.length <= 512);

  const whole = ask('many', {}, 'tcp');
  assert.ok(!whole.isTruncated);
  assert.deepEqual([...whole.addresses].sort(), [...many].sort());
});

test('an address of the network has its first name, another one of it has none', () => {
  const reply = ask('2.1.0.10.in-addr.arpa', { type: PTR });
  assert.equal(reply.code, 0);
  assert.ok(reply.bytes.subarray(30).includes(Buffer.from('\x03Web\0')));

  assert.equal(ask('99.1.0.10.in-addr.arpa', { type: PTR }).code, 3);
  assert.equal(answerQuery(query('8.8.8.8.in-addr.arpa', { type: PTR }), client, 'udp'), 'forward');
  assert.equal(answerQuery(query('1.f.ip6.arpa', { type: PTR }), client, 'udp'), 'forward');
});

test('unknown names with a dot are for the world outside, unless there is no way there', () => {
  assert.equal(answerQuery(query('example.org'), client, 'udp'), 'forward');
  assert.equal(ask('example.org', {}, 'udp', inner).code, 3);
  assert.equal(ask('unknown').code, 3);
});

test('a container of several networks is answered from all of them, the first one first', () => {
  const other = new Zone([parsePrefix('10.0.2.0/24')!]);
  other.update([
    [
      { name: 'db', addresses: ['10.0.2.9'] },
      { name: 'web', addresses: ['10.0.2.2'] },
    ],
  ]);
  const both: Client = { zones: [zone, other], mayForward: false };

  assert.deepEqual(ask('db', {}, 'udp', both).addresses, ['10.0.2.9']);
  assert.deepEqual(ask('web', {}, 'udp', both).addresses, ['10.0.1.2']);
  assert.equal(ask('9.2.0.10.in-addr.arpa', { type: PTR }, 'udp', both).code, 0);
});

test('names change with their records, and those that left are unknown', () => {
  const changing = new Zone([parsePrefix('10.0.1.0/24')!]);
  const who: Client = { zones: [changing], mayForward: false };
  changing.update([
    [
      { name: 'a', addresses: ['10.0.1.2'] },
      { name: 'b', addresses: ['10.0.1.3'] },
    ],
  ]);
  assert.deepEqual(ask('b', {}, 'udp', who).addresses, ['10.0.1.3']);
  changing.update([[{ name: 'b', addresses: ['10.0.1.4'] }]]);

  assert.equal(ask('a', {}, 'udp', who).code, 3);
  assert.deepEqual(ask('b', {}, 'udp', who).addresses, ['10.0.1.4']);
});

test('a name that two services have leads to both, and to the other when one of them goes', () => {
  const shared = new Zone([parsePrefix('10.0.1.0/24')!]);
  const who: Client = { zones: [shared], mayForward: false };
  const [blue, green] = ['10.0.1.2', '10.0.1.3'].map((address) => [{ name: 'app', addresses: [address] }]);
  shared.update([blue!, green!]);
  assert.deepEqual(ask('app', {}, 'udp', who).addresses?.toSorted(), ['10.0.1.2', '10.0.1.3']);
  shared.update([green!]);
  assert.deepEqual(ask('app', {}, 'udp', who).addresses, ['10.0.1.3']);
});

test('until the names are told, nobody is told that one does not exist', () => {
  const who: Client = { zones: [zone, new Zone([parsePrefix('10.0.2.0/24')!])], mayForward: true };

  assert.deepEqual(ask('web', {}, 'udp', who).addresses, ['10.0.1.2']);
  assert.equal(ask('unknown', {}, 'udp', who).code, 2);
  assert.equal(ask('tasks.db', {}, 'udp', who).code, 2);
});

test('what is not a plain question is refused by its kind', () => {
  assert.equal(ask('web', { flags: 0x1000 }).code, 4);
  assert.equal(ask('web', { class: 3 }).code, 5);
  const broken = query('web');
  broken[12] = 0xc0;
  assert.equal((answerQuery(broken, client, 'udp') as Buffer)[3]! & 0xf, 1);
  assert.equal(answerQuery(query('web', { flags: 0x8000 }), client, 'udp'), undefined);
});

test('no bytes whatever make it fail', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), fc.boolean(), (bytes, isQuestion) => {
      const message = Buffer.from(bytes);
      if (isQuestion && message.length > 12) Buffer.from([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]).copy(message);
      const answer = answerQuery(message, inner, 'udp');
      assert.ok(answer === undefined || (Buffer.isBuffer(answer) && answer.length >= 12));
      failQuery(message);
    }),
  );
});

test('messages of a stream come out as they went in, however it is cut', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 20 })), fc.integer({ min: 1, max: 9 }), (parts, step) => {
      const stream = Buffer.concat(parts.map((part) => frame(Buffer.from(part))));
      const reader = new FrameReader();
      const messages: Buffer[] = [];
      for (let start = 0; start < stream.length; start += step) {
        messages.push(...reader.push(stream.subarray(start, start + step)));
      }
      assert.deepEqual(
        messages,
        parts.map((part) => Buffer.from(part)),
      );
    }),
  );
});
