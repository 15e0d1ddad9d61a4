// `--network NAME` or `--network name=NAME,alias=…,vip=…,driver-opt=KEY=VALUE` of a service. Pure.

import { emptyNetworkAttachment, type NetworkAttachment } from '../../core/generated/objects.ts';
import { splitCsv, splitKeyValue } from './words.ts';

// Docker reads them and does nothing with them for services.
const OF_CONTAINERS = new Set(['ip', 'ip6', 'mac-address', 'link-local-ip', 'gw-priority']);

/** The network as it was written: the manager knows which one it is. */
export function parseNetworkAttachment(text: string): NetworkAttachment {
  if (!text.includes('=')) {
    if (text.trim() === '') throw new Error('must be the name or id of a network');
    return { ...emptyNetworkAttachment, networkId: text };
  }
  let networkId = '';
  const aliases: string[] = [];
  const virtualAddresses: string[] = [];
  const options: Record<string, string> = {};
  for (const field of splitCsv(text)) {
    const { key, value = '' } = splitKeyValue(field);
    const name = key.trim().toLowerCase();
    if (OF_CONTAINERS.has(name))
      throw new Error(`${name} is for single containers; the address of a service is vip=ADDRESS`);
    if (value === '') throw new Error(`invalid field "${field}" must be a key=value pair`);
    switch (name) {
      case 'name':
        networkId = value;
        break;
      case 'alias':
        aliases.push(value);
        break;
      case 'vip':
        virtualAddresses.push(value);
        break;
      case 'driver-opt': {
        const option = splitKeyValue(value);
        if (option.key === '' || option.value === undefined)
          throw new Error(`driver-opt "${value}" must be KEY=VALUE`);
        options[option.key] = option.value;
        break;
      }
      default:
        throw new Error(`unknown key "${key}"; known are name, alias, vip and driver-opt`);
    }
  }
  if (networkId === '') throw new Error('name is missing: name=NETWORK');
  return { networkId, aliases, virtualAddresses, options };
}
