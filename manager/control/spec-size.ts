// A spec is a part of a log entry, and that is bounded.

import { invalidField } from '../../core/errors.ts';
import { SPEC_BYTES_MAX } from '../../core/validate-spec.ts';
import { type Codec, encode } from '../../proto/wire.ts';

/** Throws `invalid-argument` when the spec is too large. */
export function requireSpecSize<T>(codec: Codec<T>, spec: T): void {
  const { length } = encode(codec, spec);
  if (length > SPEC_BYTES_MAX)
    throw invalidField(
      'spec',
      `the whole spec has ${length} bytes, ${SPEC_BYTES_MAX} are allowed (env, labels and args count)`,
    );
}
