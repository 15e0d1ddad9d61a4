// Assertions state what only a bug can break. They stay on in production: a process that no longer knows
// what it is doing ends, and its supervisor starts it again.

/** Thrown when the program contradicts itself. Never caught to go on. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

/**
 * Throws AssertionError unless `condition` holds. Where this runs a million times, a message with values in it is given as
 * a function: strings that nobody reads are most of the garbage otherwise.
 */
export function assert(condition: unknown, message: string | (() => string)): asserts condition {
  if (!condition) throw new AssertionError(typeof message === 'string' ? message : message());
}

/** Ends an exhaustive switch: a new member of the union does not compile until it has a case. */
export function assertNever(value: never): never {
  throw new AssertionError(`unexpected value ${JSON.stringify(value)}`);
}

/** The value, which the caller knows to be there. */
export function defined<T>(value: T | undefined | null, message: string): T {
  assert(value !== undefined && value !== null, message);
  return value;
}
