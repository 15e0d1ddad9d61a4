// The functions that templates may call: Go's built-in ones and Docker's.

export type TemplateFunction = (...args: unknown[]) => unknown;

const WIDTH_MAX = 10_000;

/** How Go prints a value with %v. */
export function printValue(value: unknown): string {
  if (value === undefined) return '<no value>';
  if (value === null) return '<nil>';
  if (Array.isArray(value)) return `[${value.map(printValue).join(' ')}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `map[${entries.map(([key, item]) => `${key}:${printValue(item)}`).join(' ')}]`;
  }
  return String(value);
}

/** Go's truth: false, 0, "", nothing and empty collections are false. */
export function isTruthy(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

const text = (value: unknown): string => (typeof value === 'string' ? value : printValue(value));

function compare(a: unknown, b: unknown): number {
  if (typeof a !== typeof b) throw new Error('incompatible types for comparison');
  if (typeof a === 'number' || typeof a === 'string')
    return a < (b as typeof a) ? -1 : a > (b as typeof a) ? 1 : 0;
  throw new Error('invalid type for comparison');
}

function isEqual(a: unknown, b: unknown): boolean {
  if (a !== undefined && b !== undefined && typeof a !== typeof b)
    throw new Error('incompatible types for comparison');
  return a === b;
}

function indexInto(value: unknown, ...keys: unknown[]): unknown {
  return keys.reduce((current, key) => {
    if (Array.isArray(current) || typeof current === 'string') {
      if (typeof key !== 'number') throw new Error(`cannot index a list with a ${typeof key}`);
      if (key < 0 || key >= current.length) throw new Error(`index out of range: ${key}`);
      return current[key];
    }
    if (typeof current === 'object' && current !== null)
      return Object.hasOwn(current, String(key)) ? (current as Record<string, unknown>)[String(key)] : '';
    throw new Error(`can't index item of type ${current === undefined ? 'nil' : typeof current}`);
  }, value);
}

/** %s %q %v %d %f %t %x with flags and widths. */
function formatPrintf(format: unknown, ...args: unknown[]): string {
  let used = 0;
  const result = text(format).replace(
    /%([-+ 0]*)(\d*)(?:\.(\d+))?([a-zA-Z%])/g,
    (_, flags, fieldWidth, precision, verb) => {
      if (verb === '%') return '%';
      if (used >= args.length) return `%!${verb}(MISSING)`;
      const shown = formatVerb(verb, args[used++], precision);
      const size = width(fieldWidth || 0);
      if (flags.includes('-')) return shown.padEnd(size);
      return shown.padStart(size, flags.includes('0') ? '0' : ' ');
    },
  );
  return used < args.length ? `${result}%!(EXTRA ${args.slice(used).map(text).join(', ')})` : result;
}

function formatVerb(verb: string, value: unknown, precision: string | undefined): string {
  switch (verb) {
    case 'q':
      return JSON.stringify(text(value));
    case 'f':
      return Number(value).toFixed(Number(precision ?? 6));
    case 'x':
      return typeof value === 'number' ? value.toString(16) : Buffer.from(text(value)).toString('hex');
    case 's':
      return precision === undefined ? text(value) : text(value).slice(0, Number(precision));
    case 'd':
    case 'v':
    case 't':
      return text(value);
    default:
      return `%!${verb}(${text(value)})`;
  }
}

function padded(value: unknown, left: unknown, right: unknown): string {
  if (value === '') return '';
  return ' '.repeat(width(left)) + text(value) + ' '.repeat(width(right));
}

/** No column is wider; a template must not fill the memory. */
function width(value: unknown): number {
  const count = Number(value);
  if (count > WIDTH_MAX) throw new Error(`width ${count} is more than ${WIDTH_MAX}`);
  return count;
}

/** Go's JSON leaves the order of maps to the key and escapes HTML; Docker's json function does not escape. */
export function toJson(value: unknown): string {
  return JSON.stringify(value ?? null);
}

export const templateFunctions: Readonly<Record<string, TemplateFunction>> = {
  json: (value) => toJson(value),
  split: (value, separator) => text(value).split(text(separator)),
  join: (value, separator) => (value as unknown[]).map(text).join(text(separator)),
  title: (value) =>
    text(value).replace(/(^|\s)(\p{L})/gu, (_, before, letter) => before + letter.toUpperCase()),
  lower: (value) => text(value).toLowerCase(),
  upper: (value) => text(value).toUpperCase(),
  pad: padded,
  truncate: (value, length) => [...text(value)].slice(0, Number(length)).join(''),
  print: (...args) =>
    args
      .map(
        (arg, i) =>
          (i > 0 && typeof arg !== 'string' && typeof args[i - 1] !== 'string' ? ' ' : '') + text(arg),
      )
      .join(''),
  println: (...args) => `${args.map(text).join(' ')}\n`,
  printf: formatPrintf,
  len: (value) => {
    if (typeof value === 'string') return Buffer.byteLength(value);
    if (Array.isArray(value)) return value.length;
    if (typeof value === 'object' && value !== null) return Object.keys(value).length;
    throw new Error(`len of type ${typeof value}`);
  },
  index: indexInto,
  slice: (value, from = 0, to = undefined) =>
    (value as string | unknown[]).slice(Number(from), to === undefined ? undefined : Number(to)),
  eq: (first, ...others) => others.some((other) => isEqual(first, other)),
  ne: (a, b) => !isEqual(a, b),
  lt: (a, b) => compare(a, b) < 0,
  le: (a, b) => compare(a, b) <= 0,
  gt: (a, b) => compare(a, b) > 0,
  ge: (a, b) => compare(a, b) >= 0,
  not: (value) => !isTruthy(value),
};
