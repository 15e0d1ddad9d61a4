// Placement constraints: "key==value" and "key!=value" over what is known of a node.

import { SwarmError } from './errors.ts';
import type { Node } from './generated/objects.ts';

export interface Constraint {
  readonly key: string;
  readonly operator: '==' | '!=';
  readonly value: string;
}

const PLAIN_KEYS = [
  'node.id',
  'node.hostname',
  'node.ip',
  'node.role',
  'node.platform.os',
  'node.platform.arch',
] as const;
const LABEL_PREFIXES = ['node.labels.', 'engine.labels.'] as const;
// Swarm's characters for label names and for values.
const KEY_PATTERN = /^[a-z0-9._-]+$/i;
const VALUE_PATTERN = /^[a-z0-9:._\s/+-]*$/i;

/** Throws `invalid-argument` for a text that could never match a node. */
export function parseConstraint(text: string): Constraint {
  const match = /^\s*(.+?)\s*(==|!=)\s*(.*?)\s*$/s.exec(text);
  if (match === null) throw refuse(text, 'it must be KEY==VALUE or KEY!=VALUE');
  const [, key = '', operator, value = ''] = match;
  const label = LABEL_PREFIXES.find((prefix) => key.toLowerCase().startsWith(prefix));
  const isKnown =
    label !== undefined ? key.length > label.length : PLAIN_KEYS.includes(key.toLowerCase() as never);
  if (!isKnown || !KEY_PATTERN.test(key))
    throw refuse(
      text,
      `unknown key "${key}"; known are ${PLAIN_KEYS.join(', ')}, node.labels.X, engine.labels.X`,
    );
  if (value === '' || !VALUE_PATTERN.test(value))
    throw refuse(text, `"${value}" is not a value to compare with`);
  const normalKey = label === undefined ? key.toLowerCase() : label + key.slice(label.length);
  return { key: normalKey, operator: operator as Constraint['operator'], value };
}

/** True when the node satisfies the constraint; a label that is missing compares as empty. */
export function matchesConstraint(constraint: Constraint, node: Node): boolean {
  const isEqual =
    constraint.key === 'node.ip'
      ? matchesAddress(constraint.value, node.status.address)
      : attributeOf(constraint.key, node).toLowerCase() === constraint.value.toLowerCase();
  return isEqual === (constraint.operator === '==');
}

function attributeOf(key: string, node: Node): string {
  switch (key) {
    case 'node.id':
      return node.id;
    case 'node.hostname':
      return node.description.hostname;
    case 'node.role':
      return node.role;
    case 'node.platform.os':
      return node.description.platform.os;
    case 'node.platform.arch':
      return normalArchitecture(node.description.platform.architecture);
  }
  if (key.startsWith('node.labels.')) return node.spec.labels[key.slice('node.labels.'.length)] ?? '';
  return node.description.engineLabels[key.slice('engine.labels.'.length)] ?? '';
}

/** The kernel's and Docker's names of one architecture are one: x86_64 = amd64, aarch64 = arm64. */
export function normalArchitecture(architecture: string): string {
  const known: Record<string, string> = { x86_64: 'amd64', x64: 'amd64', aarch64: 'arm64' };
  return known[architecture] ?? architecture;
}

function matchesAddress(wanted: string, address: string): boolean {
  const [base = '', lengthText] = wanted.split('/');
  const a = parseIpv4(base);
  const b = parseIpv4(address);
  if (a === undefined || b === undefined) return wanted === address;
  const length = lengthText === undefined ? 32 : Number(lengthText);
  const shift = BigInt(32 - length);
  return a >> shift === b >> shift;
}

function parseIpv4(text: string): bigint | undefined {
  const parts = text.split('.').map(Number);
  if (parts.length !== 4 || parts.some((part) => !Number.isInteger(part) || part < 0 || part > 255))
    return undefined;
  return parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

function refuse(text: string, problem: string): SwarmError {
  return new SwarmError('invalid-argument', `constraint "${text}": ${problem}`);
}
