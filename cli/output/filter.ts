// `--filter KEY=VALUE`: several values of one key are alternatives, several keys must all hold. Pure.

import { badFlag, UsageError } from '../usage-error.ts';

export type Filters = ReadonlyMap<string, readonly string[]>;

export function parseFilters(texts: readonly string[], knownKeys: readonly string[]): Filters {
  const filters = new Map<string, string[]>();
  for (const text of texts) {
    const equals = text.indexOf('=');
    if (equals < 0)
      throw badFlag(`invalid argument ${JSON.stringify(text)} for "-f, --filter" flag: must be KEY=VALUE`);
    const key = text.slice(0, equals).trim().toLowerCase();
    if (!knownKeys.includes(key))
      throw new UsageError(`--filter: invalid filter "${key}"; known are ${knownKeys.join(', ')}`);
    filters.set(key, [...(filters.get(key) ?? []), text.slice(equals + 1).trim()]);
  }
  return filters;
}

/** True when no such filter was given, or one of its values matches. */
export function matchesFilter(filters: Filters, key: string, matches: (value: string) => boolean): boolean {
  const values = filters.get(key);
  return values === undefined || values.some(matches);
}

type Labels = Readonly<Record<string, string>>;

/** "KEY" or "KEY=VALUE", all of them. */
export function matchesLabels(filters: Filters, key: string, labels: Labels): boolean {
  return (filters.get(key) ?? []).every((wanted) => hasLabel(labels, wanted));
}

/** "KEY" or "KEY=VALUE", none of them. */
export function lacksLabels(filters: Filters, key: string, labels: Labels): boolean {
  return !(filters.get(key) ?? []).some((unwanted) => hasLabel(labels, unwanted));
}

function hasLabel(labels: Labels, text: string): boolean {
  const equals = text.indexOf('=');
  if (equals < 0) return Object.hasOwn(labels, text);
  return labels[text.slice(0, equals)] === text.slice(equals + 1);
}
