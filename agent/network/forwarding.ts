// Whether the host forwards packets, which networks with a way out need. What is switched on is noted first, so that it is
// switched off again with the last network, of this process or another.

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from '../../rpc/logger.ts';
import type { IpFamily } from '../linux/ip-family.ts';
import { readNetworkSetting, writeNetworkSetting } from '../linux/sysctl.ts';

interface Setting {
  readonly name: string;
  readonly note: string;
  readonly text: string;
}

const settings = {
  ipv4: { name: 'ipv4/ip_forward', note: 'overlay-forwarding', text: 'IPv4' },
  ipv6: { name: 'ipv6/conf/all/forwarding', note: 'overlay-forwarding-ipv6', text: 'IPv6' },
} as const satisfies Record<IpFamily, Setting>;
const ADVERTISEMENTS_UNLESS_ROUTER = '1';
const ADVERTISEMENTS_ALWAYS = '2';

/** First the note, then the deed: after a crash in between, only what is off is switched off. */
export function enableForwarding(family: IpFamily, runDir: string, logger: Logger): void {
  const { name, note, text } = settings[family];
  if (readNetworkSetting(name) !== '0') return;
  const links = family === 'ipv6' ? linksThatListen() : [];
  writeFileSync(join(runDir, note), links.join('\n'));
  // A host that forwards would not listen to its routers any more, and lose its own way out.
  for (const link of links) writeNetworkSetting(advertisementsOf(link), ADVERTISEMENTS_ALWAYS);
  writeNetworkSetting(name, 1);
  logger.info({}, `enabled ${text} forwarding on this node`);
}

/** As it was, where it was switched on here. */
export function restoreForwarding(runDir: string): void {
  for (const { name, note } of Object.values(settings)) {
    if (!readdirSync(runDir).includes(note)) continue;
    const links = readFileSync(join(runDir, note), 'utf8').split('\n');
    writeNetworkSetting(name, 0);
    const present = new Set(name === settings.ipv6.name ? readdirSync('/proc/sys/net/ipv6/conf') : []);
    for (const link of links) {
      if (present.has(link)) writeNetworkSetting(advertisementsOf(link), ADVERTISEMENTS_UNLESS_ROUTER);
    }
    rmSync(join(runDir, note), { force: true });
  }
}

/** Links that take routes from routers as long as the host is none. */
function linksThatListen(): string[] {
  return readdirSync('/proc/sys/net/ipv6/conf').filter(
    (link) => readNetworkSetting(advertisementsOf(link)) === ADVERTISEMENTS_UNLESS_ROUTER,
  );
}

function advertisementsOf(link: string): string {
  return `ipv6/conf/${link}/accept_ra`;
}
