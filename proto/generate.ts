// Turns proto/*.proto into TypeScript: `npm run generate`. The output is committed.
// Types are plain readonly objects with string-literal enums; codecs write and read them directly, so nothing
// converts between wire and core. Types of objects.proto go to core/ (they are the vocabulary), their codecs and
// everything else to proto/generated/.

import { readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import protobuf from 'protobufjs';
import { assert, defined } from '../core/assert.ts';
import type { CallerRole } from './wire.ts';

const here = import.meta.dirname;
const CORE_TYPES = 'objects';
const WIRE_MODULE = '../wire.ts';
const SCALARS: Record<string, { type: string; empty: string; wire: number; read: string; safe?: boolean }> = {
  string: { type: 'string', empty: "''", wire: 2, read: 'string' },
  bool: { type: 'boolean', empty: 'false', wire: 0, read: 'bool' },
  bytes: { type: 'Uint8Array', empty: 'NO_BYTES', wire: 2, read: 'bytes' },
  int32: { type: 'number', empty: '0', wire: 0, read: 'int32' },
  uint32: { type: 'number', empty: '0', wire: 0, read: 'uint32' },
  int64: { type: 'number', empty: '0', wire: 0, read: 'int64', safe: true },
  uint64: { type: 'number', empty: '0', wire: 0, read: 'uint64', safe: true },
  double: { type: 'number', empty: '0', wire: 1, read: 'double' },
};

/** What the generator needs to know of one field. */
interface FieldPlan {
  readonly field: protobuf.Field;
  readonly name: string;
  readonly kind: 'scalar' | 'enum' | 'message';
  readonly shape: 'one' | 'many' | 'map' | 'optional';
  /** Scalar name, or the TypeScript name of the enum or message. */
  readonly target: string;
}

function loadRoot(): protobuf.Root {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) =>
    target.startsWith('google/')
      ? path.join(here, '../node_modules/protobufjs', target)
      : path.join(here, path.basename(target));
  const files = readdirSync(here).filter((name) => name.endsWith('.proto'));
  root.loadSync(files, { keepCase: false, alternateCommentMode: true });
  root.resolveAll();
  return root;
}

function hasOption(field: protobuf.Field, name: 'required' | 'shared'): boolean {
  return field.options?.[`(${name})`] === true || field.options?.[`(tsswarm.${name})`] === true;
}

function planField(field: protobuf.Field): FieldPlan {
  const resolved = field.resolvedType;
  const kind = resolved instanceof protobuf.Enum ? 'enum' : resolved === null ? 'scalar' : 'message';
  const single =
    kind === 'message'
      ? hasOption(field, 'required')
        ? 'one'
        : 'optional'
      : field.options?.['proto3_optional'] === true
        ? 'optional'
        : 'one';
  const shape = field.map ? 'map' : field.repeated ? 'many' : single;
  return { field, name: field.name, kind, shape, target: resolved === null ? field.type : resolved.name };
}

function valueType(plan: FieldPlan): string {
  if (plan.kind !== 'scalar') return plan.target;
  return defined(SCALARS[plan.target], `no scalar ${plan.target} in ${plan.field.fullName}`).type;
}

function propertyType(plan: FieldPlan): string {
  if (plan.shape === 'map') return `Readonly<Record<string, ${valueType(plan)}>>`;
  return plan.shape === 'many' ? `readonly ${valueType(plan)}[]` : valueType(plan);
}

function emptyValue(plan: FieldPlan): string {
  if (plan.shape === 'map') return '{}';
  if (plan.shape === 'many') return '[]';
  if (plan.kind === 'message') return `empty${plan.target}`;
  if (plan.kind === 'enum') return JSON.stringify(defined(enumNames(plan)[0], 'an enum has members').name);
  return defined(SCALARS[plan.target], plan.target).empty;
}

function enumMembers(type: protobuf.Enum): { name: string; value: number }[] {
  const prefix = `${type.name.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()}_`;
  return Object.entries(type.values).map(([key, value]) => ({
    name: (key.startsWith(prefix) ? key.slice(prefix.length) : key).toLowerCase().replaceAll('_', '-'),
    value,
  }));
}

function enumNames(plan: FieldPlan): { name: string; value: number }[] {
  assert(plan.field.resolvedType instanceof protobuf.Enum, `${plan.field.fullName} is no enum`);
  return enumMembers(plan.field.resolvedType);
}

function comment(text: string | null | undefined, indent: string): string {
  if (!text) return '';
  const lines = text.split('\n').map((line) => line.trim());
  return `${indent}/** ${lines.join(`\n${indent} * `)} */\n`;
}

function enumSource(type: protobuf.Enum): string {
  const members = enumMembers(type);
  const table = `${type.name[0]?.toLowerCase()}${type.name.slice(1)}Numbers`;
  return `${comment(type.comment, '')}export type ${type.name} = ${members.map((m) => `'${m.name}'`).join(' | ')};
export const ${table} = { ${members.map((m) => `'${m.name}': ${m.value}`).join(', ')} } as const satisfies Record<${type.name}, number>;
`;
}

function typeSource(type: protobuf.Type): string {
  const plans = type.fieldsArray.map(planField);
  const properties = plans.map(
    (plan) =>
      `${comment(plan.field.comment, '  ')}  readonly ${plan.name}${plan.shape === 'optional' ? '?' : ''}: ${propertyType(plan)};`,
  );
  const empties = plans.filter((plan) => plan.shape !== 'optional');
  return `${comment(type.comment, '')}export interface ${type.name} {\n${properties.join('\n')}\n}
export const empty${type.name}: ${type.name} = Object.freeze({ ${empties.map((plan) => `${plan.name}: ${emptyValue(plan)}`).join(', ')} });
`;
}

function enumCodecName(target: string): string {
  return `${target[0]?.toLowerCase()}${target.slice(1)}`;
}

function writeValue(plan: FieldPlan, tag: number, value: string): string {
  if (hasOption(plan.field, 'shared'))
    return `w.uint32(${tag}).bytes(encodeOnce(${plan.target}Codec, ${value}));`;
  if (plan.kind === 'message')
    return `${plan.target}Codec.write(${value}, w.uint32(${tag}).fork()).ldelim();`;
  if (plan.kind === 'enum') return `w.uint32(${tag}).int32(${enumCodecName(plan.target)}Numbers[${value}]);`;
  const scalar = defined(SCALARS[plan.target], plan.target);
  return `w.uint32(${tag}).${scalar.read}(${scalar.safe ? `safeInteger(${value})` : value});`;
}

function wireType(plan: FieldPlan): number {
  return plan.kind === 'message'
    ? 2
    : plan.kind === 'enum'
      ? 0
      : defined(SCALARS[plan.target], plan.target).wire;
}

function writeField(plan: FieldPlan): string {
  const tag = (plan.field.id << 3) | wireType(plan);
  const access = `m.${plan.name}`;
  if (plan.shape === 'map') {
    const entry = writeValue(plan, (2 << 3) | wireType(plan), 'value').replace(/;$/, '');
    const body =
      plan.kind === 'message'
        ? `{ w.uint32(${(plan.field.id << 3) | 2}).fork().uint32(10).string(key); ${entry}; w.ldelim(); }`
        : `${entry.replace('w.', `w.uint32(${(plan.field.id << 3) | 2}).fork().uint32(10).string(key).`)}.ldelim();`;
    return `for (const [key, value] of Object.entries(${access})) ${body}`;
  }
  if (plan.shape === 'many') return `for (const value of ${access}) ${writeValue(plan, tag, 'value')}`;
  if (plan.shape === 'optional') return `if (${access} !== undefined) ${writeValue(plan, tag, access)}`;
  if (plan.kind === 'message') return writeValue(plan, tag, access);
  const present = plan.target === 'bytes' ? `${access}.length > 0` : `${access} !== ${emptyValue(plan)}`;
  return `if (${present}) ${writeValue(plan, tag, access)}`;
}

function readValue(plan: FieldPlan): string {
  if (plan.kind === 'message') return `${plan.target}Codec.read(r, r.uint32() + r.pos)`;
  if (plan.kind === 'enum')
    return `(${enumCodecName(plan.target)}Names.get(r.int32()) ?? ${emptyValue({ ...plan, shape: 'one' })})`;
  const scalar = defined(SCALARS[plan.target], plan.target);
  return scalar.safe ? `safeInteger(r.${scalar.read}())` : `r.${scalar.read}()`;
}

function readField(plan: FieldPlan): string {
  if (plan.shape === 'map') {
    const fallback = emptyValue({ ...plan, shape: 'one' });
    return `{ const stop = r.uint32() + r.pos; let key = ''; let value: ${valueType(plan)} = ${fallback};
        while (r.pos < stop) { const inner = r.uint32(); if (inner >>> 3 === 1) key = r.string(); else if (inner >>> 3 === 2) value = ${readValue(plan)}; else r.skipType(inner & 7); }
        ${plan.name}.push([key, value]); break; }`;
  }
  if (plan.shape === 'many') {
    const own = `if (${plan.name} === NONE) ${plan.name} = [];`;
    const push = `${plan.name}.push(${readValue(plan)});`;
    if (wireType(plan) === 2) return `${own} ${push} break;`;
    return `${own} if ((tag & 7) === 2) { const stop = r.uint32() + r.pos; while (r.pos < stop) ${push} } else ${push} break;`;
  }
  return `${plan.name} = ${readValue(plan)}; break;`;
}

function codecSource(type: protobuf.Type): string {
  const plans = type.fieldsArray.map(planField);
  const locals = plans.map((plan) => {
    if (plan.shape === 'map') return `const ${plan.name}: [string, ${valueType(plan)}][] = [];`;
    if (plan.shape === 'many') return `let ${plan.name}: ${valueType(plan)}[] = NONE;`;
    if (plan.shape === 'optional') return `let ${plan.name}: ${valueType(plan)} | undefined;`;
    return `let ${plan.name}: ${valueType(plan)} = ${emptyValue(plan)};`;
  });
  const always = plans
    .filter(({ shape }) => shape !== 'optional')
    // Unlike an assignment, this also makes a property of the key "__proto__".
    .map(({ name, shape }) => (shape === 'map' ? `${name}: Object.fromEntries(${name})` : name));
  const optional = plans.filter(({ shape }) => shape === 'optional');
  const whole = `{ ${always.join(', ')} }`;
  // A spread for each that may be there took half of the time of reading a message.
  const result =
    optional.length === 0
      ? [`return ${whole};`]
      : [
          `const m: Mutable<${type.name}> = ${whole};`,
          ...optional.map(({ name }) => `if (${name} !== undefined) m.${name} = ${name};`),
          'return m;',
        ];
  return `export const ${type.name}Codec: Codec<${type.name}> = {
  write(${plans.length ? 'm' : '_m'}, w) {
    ${plans.map(writeField).join('\n    ')}
    return w;
  },
  read(r, end) {
    ${locals.join('\n    ')}
    while (r.pos < end) {
      const tag = r.uint32();
      switch (tag >>> 3) {
        ${plans.map((plan) => `case ${plan.field.id}: ${readField(plan)}`).join('\n        ')}
        default: r.skipType(tag & 7);
      }
    }
    ${result.join('\n    ')}
  },
};
`;
}

function enumCodecSource(type: protobuf.Enum): string {
  const name = enumCodecName(type.name);
  return `const ${name}Names = new Map<number, ${type.name}>(Object.entries(${name}Numbers).map(([key, value]) => [value, key as ${type.name}]));
`;
}

function serviceSource(service: protobuf.Service): string {
  const methods = service.methodsArray.map((method) => {
    const request = defined(method.resolvedRequestType, method.fullName).name;
    const response = defined(method.resolvedResponseType, method.fullName).name;
    const shape = method.requestStream
      ? method.responseStream
        ? 'bidi'
        : 'client-stream'
      : method.responseStream
        ? 'server-stream'
        : 'unary';
    const path = `/${service.fullName.slice(1)}/${method.name}`;
    const name = `${method.name[0]?.toLowerCase()}${method.name.slice(1)}`;
    const callers = callersOf(method)
      .map((role) => `'${role}'`)
      .join(', ');
    return `  ${name}: { path: '${path}', shape: '${shape}', callers: [${callers}], isReadOnly: ${isReadOnly(method)}, request: ${request}Codec, response: ${response}Codec },`;
  });
  return `${comment(service.comment, '')}export const ${service.name}Service = {\n${methods.join('\n')}\n} as const;\n`;
}

const CALLERS: readonly string[] = ['local', 'anyone', 'worker', 'manager'] satisfies CallerRole[];

/** Whom a method of ours names; containerd's name nobody, since we only call them. */
function callersOf(method: protobuf.Method): string[] {
  const option = method.options?.['(callers)'] ?? method.options?.['(tsswarm.callers)'];
  const callers = typeof option === 'string' ? option.split(/, */) : [];
  const isOurs = method.fullName.startsWith('.tsswarm.');
  if ((isOurs && callers.length === 0) || callers.some((role) => !CALLERS.includes(role)))
    throw new Error(`${method.fullName}: option (callers) has to name some of ${CALLERS.join(', ')}`);
  return callers;
}

/** It may be asked again whenever nobody knows whether it was answered. */
function isReadOnly(method: protobuf.Method): boolean {
  return method.options?.['idempotency_level'] === 'NO_SIDE_EFFECTS';
}

const HEADER = '// Generated by proto/generate.ts. Do not edit.\n';

interface FileContent {
  readonly types: protobuf.Type[];
  readonly enums: protobuf.Enum[];
  readonly services: protobuf.Service[];
}

function contentOf(root: protobuf.Root): Map<string, FileContent> {
  const files = new Map<string, FileContent>();
  const visit = (namespace: protobuf.NamespaceBase) => {
    for (const item of namespace.nestedArray) {
      const name = path.basename(item.filename ?? '', '.proto');
      const content = files.get(name) ?? { types: [], enums: [], services: [] };
      files.set(name, content);
      if (item instanceof protobuf.Type) content.types.push(item);
      else if (item instanceof protobuf.Enum) content.enums.push(item);
      else if (item instanceof protobuf.Service) content.services.push(item);
      if (item instanceof protobuf.Namespace) visit(item);
    }
  };
  visit(root);
  return files;
}

/** Messages in an order in which each one's required parts come before it: `empty…` constants need that. */
function inOrder(types: readonly protobuf.Type[]): protobuf.Type[] {
  const ordered: protobuf.Type[] = [];
  const visit = (type: protobuf.Type) => {
    if (ordered.includes(type) || !types.includes(type)) return;
    for (const plan of type.fieldsArray.map(planField))
      if (plan.shape === 'one' && plan.field.resolvedType instanceof protobuf.Type)
        visit(plan.field.resolvedType);
    ordered.push(type);
  };
  types.forEach(visit);
  return ordered;
}

/** Import lines for every name that `source` uses and another file declares. */
function importsFor(source: string, home: Map<string, string>, from: string): string {
  const wanted = new Map<string, string[]>();
  // Comments and paths of methods use the same words.
  const code = source.replace(/\/\*\*.*?\*\/|'[^']*'/gs, '');
  for (const [name, file] of home) {
    if (file !== from && new RegExp(`\\b${name}\\b`).test(code))
      wanted.set(file, [...(wanted.get(file) ?? []), name]);
  }
  return [...wanted]
    .map(([file, names]) => {
      const specifiers = names.map((name) =>
        name.startsWith('empty') || /(Numbers|Codec)$/.test(name) ? name : `type ${name}`,
      );
      const relative = path.relative(path.dirname(from), file);
      return `import { ${specifiers.join(', ')} } from '${relative.startsWith('.') ? relative : `./${relative}`}';\n`;
    })
    .join('');
}

function generate(): void {
  const files = contentOf(loadRoot());
  const outputs = new Map<string, string>();
  const home = new Map<string, string>();
  for (const [name, content] of files) {
    const { enums, services } = content;
    if (content.types.length + enums.length + services.length === 0 || name === 'descriptor') continue;
    const types = inOrder(content.types);
    const codecFile = `proto/generated/${name}.ts`;
    const typeFile = name === CORE_TYPES ? `core/generated/${name}.ts` : codecFile;
    for (const type of types) {
      home.set(type.name, typeFile);
      home.set(`empty${type.name}`, typeFile);
      home.set(`${type.name}Codec`, codecFile);
    }
    for (const type of enums) {
      home.set(type.name, typeFile);
      home.set(`${enumCodecName(type.name)}Numbers`, typeFile);
    }
    const declarations = [...enums.map(enumSource), ...types.map(typeSource)].join('\n');
    // An enum of another file needs its number-to-name table here as well.
    const used = new Set(
      types
        .flatMap((type) => type.fieldsArray.map((field) => field.resolve().resolvedType))
        .filter((t) => t instanceof protobuf.Enum),
    );
    const codecs = [
      ...[...used].map((type) => enumCodecSource(type as protobuf.Enum)),
      ...types.map(codecSource),
      ...services.map(serviceSource),
    ].join('\n');
    const noBytes = (source: string) =>
      source.includes('NO_BYTES') ? 'const NO_BYTES = new Uint8Array(0);\n\n' : '';
    if (typeFile === codecFile)
      outputs.set(codecFile, noBytes(declarations + codecs) + declarations + codecs);
    else {
      outputs.set(typeFile, noBytes(declarations) + declarations);
      outputs.set(codecFile, noBytes(codecs) + codecs);
    }
  }
  for (const [file, source] of outputs) {
    const wire = ['encodeOnce', 'type Codec', 'type Mutable', 'NONE', 'safeInteger'].filter((name) =>
      source.includes(name.replace('type ', '')),
    );
    const wireImport =
      wire.length && file.startsWith('proto/')
        ? `import { ${wire.join(', ')} } from '${WIRE_MODULE}';\n`
        : '';
    writeFileSync(
      path.join(here, '..', file),
      `${HEADER}${wireImport}${importsFor(source, home, file)}\n${source}`,
    );
  }
}

generate();
