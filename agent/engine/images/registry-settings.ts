// What this node's configuration says about registries: mirrors to ask first, registries without TLS, and whom to believe
// about certificates. Pure.

import net from 'node:net';

export interface RegistrySettings {
  /** Registry → base URLs that are asked before it, in order. They are shown no credentials. */
  readonly mirrors: Readonly<Record<string, readonly string[]>>;
  /** host[:port] that may be spoken to in plain HTTP, or with a certificate that nobody vouches for. */
  readonly insecure: readonly string[];
  /** host[:port] → PEM of authorities that vouch for it, besides the well-known ones. */
  readonly authorities: Readonly<Record<string, string>>;
}

export const plainRegistrySettings: RegistrySettings = { mirrors: {}, insecure: [], authorities: {} };

/** True for localhost and loopback addresses, with or without a port. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '');
  return name === 'localhost' || name === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(name);
}

/** Whether plain HTTP and unknown certificates are taken: of listed hosts, and of this machine unless it has an authority. */
export function isInsecureHost({ insecure, authorities }: RegistrySettings, host: string): boolean {
  if (insecure.includes(host)) return true;
  return isLoopback(host) && !Object.hasOwn(authorities, host);
}

const LINK_LOCAL = new net.BlockList();
LINK_LOCAL.addSubnet('169.254.0.0', 16);
LINK_LOCAL.addSubnet('fe80::', 10, 'ipv6');
// Any address of this machine, on Linux.
LINK_LOCAL.addSubnet('0.0.0.0', 8);
LINK_LOCAL.addAddress('::', 'ipv6');
const LOOPBACK = new net.BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8);
LOOPBACK.addAddress('::1', 'ipv6');

/**
 * Why nobody may send us to this address, or undefined: link-local ones answer with a cloud machine's own secrets, those
 * of this machine with its services'. A registry of this machine may name others of it.
 */
export function forbiddenAddress(address: string, senderIsLocal: boolean): string | undefined {
  const family = net.isIP(address) === 6 ? 'ipv6' : 'ipv4';
  if (LINK_LOCAL.check(address, family)) return `${address} is link-local`;
  if (!senderIsLocal && LOOPBACK.check(address, family)) return `${address} is this machine`;
  return undefined;
}
