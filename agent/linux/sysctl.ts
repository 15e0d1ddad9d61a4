// Kernel settings of the network namespace in which the calling thread is.

import { readFileSync, writeFileSync } from 'node:fs';

/** `name` as a path below /proc/sys/net: "ipv4/ip_forward". */
export function writeNetworkSetting(name: string, value: string | number): void {
  writeFileSync(`/proc/sys/net/${name}`, String(value));
}

export function readNetworkSetting(name: string): string {
  return readFileSync(`/proc/sys/net/${name}`, 'utf8').trim();
}
