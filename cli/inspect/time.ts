// Times and durations as Docker's JSON has them. Pure.

const NANOS_PER_MS = 1e6;

/** RFC 3339 in UTC; Go leaves out zeros at the end of the fraction. */
export function formatTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.?0+Z$/, 'Z');
}

export function toNanos(ms: number): number {
  return ms * NANOS_PER_MS;
}
