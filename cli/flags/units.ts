// Sizes, durations and numbers as Docker's flags spell them. Each parser throws an Error that says what is wrong
// with the text; who calls it adds the flag's name.

const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
};
const SIZE_PATTERN = /^(\d+(?:\.\d+)?) ?([kmgtp])?i?b?$/i;

/** Go's syntax ("1h2m3.5s", "500ms", "0") in milliseconds. */
export function parseDuration(text: string): number {
  if (text === '0') return 0;
  if (text.startsWith('-')) throw new Error('must not be negative');
  let rest = text.startsWith('+') ? text.slice(1) : text;
  let totalMs = 0;
  if (rest === '') throw new Error('must be a duration such as 10s or 1m30s');
  while (rest !== '') {
    const match = /^(\d+\.?\d*|\.\d+)([a-zµ]*)/.exec(rest);
    if (match === null) throw new Error('must be a duration such as 10s or 1m30s');
    const [part, amount = '', unit = ''] = match;
    const unitMs = DURATION_UNITS_MS[unit];
    if (unitMs === undefined)
      throw new Error(
        unit === '' ? 'missing unit, write for example 10s' : `unknown unit "${unit}", use h, m, s or ms`,
      );
    totalMs += Number(amount) * unitMs;
    rest = rest.slice(part.length);
  }
  const wholeMs = Math.round(totalMs);
  if (Math.abs(totalMs - wholeMs) > 1e-6 || !Number.isSafeInteger(wholeMs))
    throw new Error('must be a whole number of milliseconds');
  return wholeMs;
}

/** "4m", "1g", "1.5GiB" or plain bytes; units are powers of 1024. */
export function parseBytes(text: string): number {
  const match = SIZE_PATTERN.exec(text.trim());
  if (match === null) throw new Error('must be a size such as 512m or 1g');
  const bytes = Math.floor(Number(match[1]) * 1024 ** ' kmgtp'.indexOf((match[2] ?? ' ').toLowerCase()));
  if (!Number.isSafeInteger(bytes)) throw new Error('is too large');
  return bytes;
}

/** A decimal number of CPUs in billionths of one. */
export function parseCpus(text: string): number {
  if (!/^(\d+\.?\d*|\.\d+)$/.test(text)) throw new Error('must be a decimal number of CPUs such as 0.5');
  const nanos = Math.round(Number(text) * 1e9);
  if (/\.\d{10,}$/.test(text)) throw new Error('has more than nine decimals');
  if (!Number.isSafeInteger(nanos)) throw new Error('is too large');
  return nanos;
}

/** A whole number, zero or more. */
export function parseCount(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value))
    throw new Error('must be a whole number, zero or more');
  return value;
}

export function parseInteger(text: string): number {
  const value = Number(text);
  if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(value)) throw new Error('must be a whole number');
  return value;
}

export function parseRatio(text: string): number {
  const value = Number(text);
  if (!/^(\d+\.?\d*|\.\d+)$/.test(text) || value > 1) throw new Error('must be a number from 0 to 1');
  return value;
}

/** Go's strconv.ParseBool. */
export function parseBoolean(text: string): boolean {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false;
  throw new Error('must be true or false');
}

/** A parser that takes only these words. */
export function oneOf<const T extends string>(...choices: readonly T[]): (text: string) => T {
  return (text) => {
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined) throw new Error(`must be ${listChoices(choices)}`);
    return choice;
  };
}

function listChoices(choices: readonly string[]): string {
  const quoted = choices.map((choice) => `"${choice}"`);
  if (quoted.length < 2) return quoted.join('');
  return `${quoted.slice(0, -1).join(', ')} or ${quoted.at(-1)}`;
}
