// "10m" or "2026-01-02T15:04:05Z": a moment in the past. Pure.

import { parseDuration } from './units.ts';

/** From "now" to the moment meant: durations are relative, everything else is a time. */
export function parseMoment(text: string): (nowMs: number) => number {
  if (/^\d+(\.\d+)?$/.test(text)) return () => Number(text) * 1000;
  const timeMs = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(timeMs)) return () => timeMs;
  try {
    const durationMs = parseDuration(text);
    return (nowMs) => nowMs - durationMs;
  } catch {
    throw new Error('must be a time such as 2026-01-02T15:04:05Z or a duration such as 10m');
  }
}
