// `--label-add` and `--label-rm`. Pure.

export function mergeLabels(
  current: Readonly<Record<string, string>>,
  removed: readonly string[],
  added: readonly (readonly [string, string])[],
): Record<string, string> {
  const kept = Object.entries(current).filter(([key]) => !removed.includes(key));
  return Object.fromEntries([...kept, ...added]);
}
