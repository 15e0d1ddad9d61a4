// The generated codecs: what is written comes back, what is foreign is skipped, what is broken is refused, and
// protobufjs itself reads and writes the same bytes. Messages are made at random from the .proto files.

import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { emptyTask } from '../core/generated/objects.ts';
import { ListTasksResponseCodec } from './generated/control.ts';
import { AgentMessageCodec, AssignmentsCodec, LogBatchCodec } from './generated/dispatcher.ts';
import { LogEntryCodec } from './generated/log.ts';
import { InfoResponseCodec } from './generated/node.ts';
import { NodeCodec, ServiceCodec, TaskCodec } from './generated/objects.ts';
import { type Codec, decode, encode } from './wire.ts';

const root = new protobuf.Root();
root.resolvePath = (_origin, target) =>
  target.startsWith('google/')
    ? path.join(import.meta.dirname, '../node_modules/protobufjs', target)
    : path.join(import.meta.dirname, path.basename(target));
root.loadSync(['objects.proto', 'control.proto', 'dispatcher.proto', 'log.proto', 'node.proto']);
root.resolveAll();

const CODECS: Record<string, Codec<unknown>> = {
  Service: ServiceCodec,
  Task: TaskCodec,
  Node: NodeCodec,
  LogEntry: LogEntryCodec,
  Assignments: AssignmentsCodec,
  AgentMessage: AgentMessageCodec,
  LogBatch: LogBatchCodec,
  ListTasksResponse: ListTasksResponseCodec,
  InfoResponse: InfoResponseCodec,
} as Record<string, Codec<unknown>>;

function isRequired(field: protobuf.Field): boolean {
  return Object.entries(field.options ?? {}).some(
    ([name, value]) => name.includes('required') && value === true,
  );
}

function enumName(type: protobuf.Enum, key: string): string {
  const prefix = `${type.name.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()}_`;
  return key.replace(prefix, '').toLowerCase().replaceAll('_', '-');
}

function arbitraryOf(field: protobuf.Field, depth: number): fc.Arbitrary<unknown> {
  const type = field.resolvedType;
  if (type instanceof protobuf.Enum)
    return fc.constantFrom(...Object.keys(type.values).map((key) => enumName(type, key)));
  if (type instanceof protobuf.Type) return messageOf(type, depth - 1);
  switch (field.type) {
    case 'string':
      return fc.string({ unit: 'grapheme' });
    case 'bool':
      return fc.boolean();
    case 'bytes':
      return fc.uint8Array({ minLength: 1 }).map((bytes) => Buffer.from(bytes));
    case 'double':
      return fc.double({ noNaN: true }).map((value) => value + 0);
    case 'int32':
      return fc.integer();
    case 'uint32':
      return fc.integer({ min: 0, max: 2 ** 32 - 1 });
    case 'uint64':
      return fc.maxSafeNat();
    default:
      return fc.maxSafeInteger();
  }
}

function messageOf(type: protobuf.Type, depth: number): fc.Arbitrary<Record<string, unknown>> {
  const fields: Record<string, fc.Arbitrary<unknown>> = {};
  const required: string[] = [];
  for (const field of type.fieldsArray) {
    const isMessage = field.resolvedType instanceof protobuf.Type;
    const isOptional =
      !field.map && !field.repeated && (isMessage ? !isRequired(field) : isPresenceKept(field));
    if (isOptional && depth <= 0) continue;
    const limit = { maxLength: depth <= 0 ? 0 : 3 };
    const value = arbitraryOf(field, depth);
    fields[field.name] = field.map
      ? fc.dictionary(fc.string(), value, { maxKeys: limit.maxLength, noNullPrototype: true })
      : field.repeated
        ? fc.array(value, limit)
        : value;
    if (!isOptional) required.push(field.name);
  }
  return fc.record(fields, { requiredKeys: required, noNullPrototype: true });
}

function isPresenceKept(field: protobuf.Field): boolean {
  return field.options?.['proto3_optional'] === true;
}

function sampleOf(name: string): fc.Arbitrary<Record<string, unknown>> {
  return messageOf(root.lookupType(name), 4);
}

for (const [name, codec] of Object.entries(CODECS)) {
  test(`a ${name} comes back as it was written`, () => {
    fc.assert(
      fc.property(sampleOf(name), (message) => {
        assert.deepEqual(decode(codec, encode(codec, message)), message);
      }),
    );
  });

  test(`a ${name} that is cut off is refused or shorter, never misread and never endless`, () => {
    fc.assert(
      fc.property(sampleOf(name), fc.nat(), (message, where) => {
        const bytes = encode(codec, message);
        const cut = bytes.subarray(0, bytes.length === 0 ? 0 : where % bytes.length);
        let read: unknown;
        try {
          read = decode(codec, cut);
        } catch (error) {
          assert.ok(error instanceof Error);
          return;
        }
        // Cut between two fields: what was read are exactly these bytes.
        assert.equal(encode(codec, read).length >= cut.length, true, `${cut.length} bytes lost some`);
      }),
    );
  });

  test(`fields of a later version of ${name} are skipped`, () => {
    const later = protobuf.Writer.create();
    later.uint32((5_000 << 3) | 2).string('later');
    later.uint32((5_001 << 3) | 0).uint32(7);
    later.uint32((5_002 << 3) | 1).double(1.5);
    later.uint32((5_003 << 3) | 5).float(1.5);
    later
      .uint32((5_004 << 3) | 3)
      .uint32((1 << 3) | 0)
      .uint32(1)
      .uint32((5_004 << 3) | 4);
    const foreign = later.finish();
    fc.assert(
      fc.property(sampleOf(name), (message) => {
        const bytes = Buffer.concat([foreign, encode(codec, message), foreign]);
        assert.deepEqual(decode(codec, bytes), message);
      }),
    );
  });

  test(`noise instead of a ${name} ends in an error or a message, at once`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (noise) => {
        try {
          decode(codec, Buffer.from(noise));
        } catch (error) {
          assert.ok(error instanceof Error);
        }
      }),
      { numRuns: 300 },
    );
  });

  test(`protobufjs reads what is written of a ${name}, and writes it so that it is read the same`, () => {
    const type = root.lookupType(name);
    fc.assert(
      fc.property(sampleOf(name), (message) => {
        // The one key that protobufjs loses.
        fc.pre(!JSON.stringify(message).includes('__proto__'));
        const rewritten = type.encode(type.decode(encode(codec, message))).finish();
        assert.deepEqual(decode(codec, Buffer.from(rewritten)), message);
      }),
    );
  });
}

test('a string, bytes or a message that is cut off is refused', () => {
  const task = { ...emptyTask, id: 'a long enough name', serviceId: 'service' };
  const bytes = encode(TaskCodec, task);
  for (let length = 3; length < 2 + task.id.length; length++)
    assert.throws(() => decode(TaskCodec, bytes.subarray(0, length)), `${length} bytes were taken`);
});
