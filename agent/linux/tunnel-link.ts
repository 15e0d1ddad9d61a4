// Links of WireGuard: what the kernel makes of one, and what any tunnel's link needs.

import { encodeAttributes, type NetlinkMessage, netlinkFlags, text, uint32 } from './netlink.ts';
import { INFO_KIND, linkAttributes, linkHeader, messageTypes } from './rtnetlink.ts';

/** EOPNOTSUPP where the kernel has no WireGuard. */
export function createWireguard(name: string): NetlinkMessage {
  return {
    what: `create link ${name}`,
    type: messageTypes.newLink,
    flags: netlinkFlags.create | netlinkFlags.exclusive,
    body: Buffer.concat([
      linkHeader(0),
      encodeAttributes([
        [linkAttributes.name, text(name)],
        [linkAttributes.info, [[INFO_KIND, text('wireguard')]]],
      ]),
    ]),
  };
}

export function setLinkMtu(index: number, mtu: number): NetlinkMessage {
  return {
    what: `set the MTU of link ${index}`,
    type: messageTypes.newLink,
    flags: 0,
    body: Buffer.concat([linkHeader(index), encodeAttributes([[linkAttributes.mtu, uint32(mtu)]])]),
  };
}
