// A network that takes its options from a config-only network, as if they were its own.

import type { NetworkSpec } from './generated/objects.ts';

/** `source` is the spec of the network that `configFrom` names. */
export function effectiveNetwork(spec: NetworkSpec, source: NetworkSpec | undefined): NetworkSpec {
  if (source === undefined) return spec;
  const { subnets, options, ipv6, internal, mtu } = source;
  return { ...spec, subnets, options: { ...options, ...spec.options }, ipv6, internal, mtu };
}
