// The resolver settings of containers: the host's, without the name servers that only the host can reach.

import { readFileSync } from 'node:fs';
import { parseIpv4 } from './ipv4.ts';

/** The second holds the upstream servers where systemd-resolved serves the first from 127.0.0.53. */
const SOURCES = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf'];
const LOOPBACK_FIRST_BYTE = 127;

/** IPv4 servers outside 127.0.0.0/8: containers have neither the host's loopback nor an IPv6 way out. */
export function reachableNameServers(text: string): string[] {
  return lines(text, 'nameserver').filter((server) => {
    const address = parseIpv4(server);
    return address !== undefined && address >>> 24 !== LOOPBACK_FIRST_BYTE;
  });
}

/** Contents of a container's /etc/resolv.conf, from the host's files in order of preference. */
export function planResolvConf(sources: readonly string[]): string {
  const source = sources.find((text) => reachableNameServers(text).length > 0);
  const output = ['# Written by tsswarm from the settings of this node.'];
  if (source === undefined) {
    output.push('# The node has no name server that containers can reach.');
  } else {
    for (const server of reachableNameServers(source)) output.push(`nameserver ${server}`);
  }
  const settings = source ?? sources[0] ?? '';
  for (const keyword of ['search', 'options']) {
    const value = lines(settings, keyword).at(-1);
    if (value !== undefined) output.push(`${keyword} ${value}`);
  }
  return `${output.join('\n')}\n`;
}

/** Contents of /etc/resolv.conf of a container whose names come from an overlay network. */
export function planOverlayResolvConf(server: string, sources: readonly string[]): string {
  const search = sources.flatMap((text) => lines(text, 'search').slice(-1))[0];
  return [
    '# Written by tsswarm.',
    `nameserver ${server}`,
    ...(search === undefined ? [] : [`search ${search}`]),
    // Names without a dot are the network's: they are asked for as they are.
    'options ndots:0',
    '',
  ].join('\n');
}

/** IPv4 servers that the host itself uses, also on its loopback. */
export function hostNameServers(sources: readonly string[]): string[] {
  const servers = lines(sources[0] ?? '', 'nameserver');
  return servers.filter((server) => parseIpv4(server) !== undefined);
}

export function readResolvConfSources(): string[] {
  return SOURCES.flatMap((path) => {
    try {
      return [readFileSync(path, 'utf8')];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  });
}

/** The values of the lines that start with `keyword`. */
function lines(text: string, keyword: string): string[] {
  return text.split('\n').flatMap((line) => {
    const [first, ...rest] = line.trim().split(/\s+/);
    return first === keyword && rest.length > 0 ? [rest.join(' ')] : [];
  });
}
