// Random bytes in small portions from a pool: asking the system for each of them costs more than using them.

import type { RandomBytes } from '../core/ids.ts';

const POOL_BYTES = 4096;

/** For portions that are far smaller than the pool; none is given out twice. */
export function pooled(randomBytes: RandomBytes): RandomBytes {
  let pool = randomBytes(0);
  return (size) => {
    if (pool.length < size) pool = randomBytes(Math.max(POOL_BYTES, size));
    const portion = pool.subarray(0, size);
    pool = pool.subarray(size);
    return portion;
  };
}
