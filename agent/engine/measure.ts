// The engine's hook for metrics: how long each operation took, and whether it succeeded.

type EngineOperation = 'create' | 'start' | 'stop' | 'remove' | 'pull' | 'push' | 'import';

export type Observe = (operation: EngineOperation, durationMs: number, ok: boolean) => void;

/** Runs an action and reports it. */
export type Measure = <T>(operation: EngineOperation, action: () => Promise<T>) => Promise<T>;

export function measureWith(observe: Observe | undefined): Measure {
  return async (operation, action) => {
    const startMs = performance.now();
    let ok = false;
    try {
      const result = await action();
      ok = true;
      return result;
    } finally {
      observe?.(operation, performance.now() - startMs, ok);
    }
  };
}
