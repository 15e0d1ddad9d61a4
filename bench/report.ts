// What a bench prints: a table for people, and with --json one object on the last line for programs.

export interface Row {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** The same of the peer, in the same run. */
  readonly peer?: number;
  /** value / peer */
  readonly ratio?: number;
  /** What is asked for, in words: "ratio ≤ 0.25". */
  readonly target?: string;
  readonly ok?: boolean;
}

/** A row judged by its ratio to the peer: at most `ratioMax`. */
export function againstPeer(what: string, unit: string, value: number, peer: number, ratioMax: number): Row {
  const ratio = value / peer;
  return {
    what,
    value: round(value),
    unit,
    peer: round(peer),
    ratio: round(ratio),
    target: `ratio ≤ ${round(ratioMax)}`,
    ok: ratio <= ratioMax,
  };
}

/** A row judged by itself: at most `max`. */
export function againstLimit(what: string, unit: string, value: number, max: number, peer?: number): Row {
  return {
    what,
    value: round(value),
    unit,
    ...(peer === undefined ? undefined : { peer: round(peer), ratio: round(value / peer) }),
    target: `≤ ${max} ${unit}`,
    ok: value <= max,
  };
}

/** A row judged by itself: at least `min`. */
export function againstFloor(what: string, unit: string, value: number, min: number, peer?: number): Row {
  return {
    what,
    value: round(value),
    unit,
    ...(peer === undefined ? undefined : { peer: round(peer), ratio: round(value / peer) }),
    target: `≥ ${min} ${unit}`,
    ok: value >= min,
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

/** The value that `part` of all values are below: 0.99 for p99. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

export function printReport(name: string, rows: readonly Row[], asJson: boolean): void {
  const table = rows.map((row) => ({
    what: row.what,
    tsswarm: `${row.value} ${row.unit}`,
    peer: row.peer === undefined ? '' : `${row.peer} ${row.unit}`,
    ratio: row.ratio ?? '',
    target: row.target ?? '',
    ok: row.ok === undefined ? '' : row.ok ? 'yes' : 'NO',
  }));
  console.table(table);
  if (asJson) process.stdout.write(`${JSON.stringify({ name, rows })}\n`);
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
