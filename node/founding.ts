// What a cluster begins with.

import { defaultClusterNetwork, defaultClusterSpec } from '../core/defaults.ts';
import { validateClusterNetwork, validateClusterSpec } from '../core/validate-cluster.ts';
import type { Bootstrap } from '../manager/bootstrap.ts';
import type { InitRequest } from '../proto/generated/node.ts';

/** The cluster is there already; only its manager is a new one. */
export const asItIs: Bootstrap = { spec: {}, network: {}, availability: 'active', dataPathAddress: '' };

/** What an operator said of the new cluster. Throws `invalid-argument` that names the flag. */
export function foundingOf({ cluster, clusterFields, network, availability }: InitRequest): Bootstrap {
  const spec = Object.fromEntries(Object.entries(cluster).filter(([key]) => clusterFields.includes(key)));
  validateClusterSpec({ ...defaultClusterSpec, ...spec });
  const { addressPools, addressPoolMaskLength, dataPathPort } = network;
  const said = {
    ...(addressPools.length > 0 && { addressPools }),
    ...(addressPoolMaskLength > 0 && { addressPoolMaskLength }),
    ...(dataPathPort > 0 && { dataPathPort }),
  };
  validateClusterNetwork({ ...defaultClusterNetwork, ...said });
  return { spec, network: said, availability, dataPathAddress: '' };
}
