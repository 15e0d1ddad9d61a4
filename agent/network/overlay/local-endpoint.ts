// A container's end, as the kernel keeps it: in the alias of its link, which is set last and says that it is complete.

export interface LocalEndpoint {
  readonly id: string;
  readonly address: string;
  /** Of a network that has IPv6. */
  readonly ipv6Address?: string;
  readonly isDefaultRoute: boolean;
  readonly namespacePath: string;
}

const ALIAS_BYTES_MAX = 255;
const DEFAULT_ROUTE = 'default';
const NO_DEFAULT_ROUTE = 'subnet';

export function addressesOf({ address, ipv6Address }: LocalEndpoint): string[] {
  return ipv6Address === undefined ? [address] : [address, ipv6Address];
}

export function isAliasTooLong(endpoint: LocalEndpoint): boolean {
  return Buffer.byteLength(formatAlias(endpoint)) > ALIAS_BYTES_MAX;
}

export function formatAlias(endpoint: LocalEndpoint): string {
  const way = endpoint.isDefaultRoute ? DEFAULT_ROUTE : NO_DEFAULT_ROUTE;
  return `${endpoint.id} ${addressesOf(endpoint).join(',')} ${way} ${endpoint.namespacePath}`;
}

/** undefined for a link that is half made or half gone. */
export function parseAlias(alias: string): LocalEndpoint | undefined {
  const [, id = '', addresses = '', way, namespacePath = ''] = /^(\S+) (\S+) (\S+) (.+)$/.exec(alias) ?? [];
  if (id === '') return undefined;
  const [address = '', ipv6Address] = addresses.split(',');
  return {
    id,
    address,
    ...(ipv6Address !== undefined && { ipv6Address }),
    isDefaultRoute: way === DEFAULT_ROUTE,
    namespacePath,
  };
}
