// Links that share a physical interface of the host: macvlan with a MAC address of their own, ipvlan with its one.

import {
  type Attribute,
  encodeAttributes,
  type NetlinkMessage,
  netlinkFlags,
  text,
  uint16,
  uint32,
} from './netlink.ts';
import { INFO_DATA, INFO_KIND, linkAttributes, linkHeader, messageTypes } from './rtnetlink.ts';

/** Values of linux/if_link.h. */
export const macvlanModes = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;
export const ipvlanModes = { l2: 0, l3: 1, l3s: 2 } as const;

const LINK_PARENT = 5;
const MODE = 1;

export interface ParentLinkOptions {
  readonly kind: 'macvlan' | 'ipvlan';
  /** One of `macvlanModes` or `ipvlanModes`. */
  readonly mode: number;
  readonly parentIndex: number;
  /** Name and index in the namespace where the link goes. */
  readonly name: string;
  readonly index: number;
  /** Of macvlan. */
  readonly macAddress?: Buffer;
  readonly namespaceFd: number;
}

/** EOPNOTSUPP where the kernel has no such links. */
export function createParentLink(options: ParentLinkOptions): NetlinkMessage {
  const { kind, mode, parentIndex, name, index, macAddress, namespaceFd } = options;
  const attributes: Attribute[] = [
    [linkAttributes.name, text(name)],
    [LINK_PARENT, uint32(parentIndex)],
    [linkAttributes.namespaceFd, uint32(namespaceFd)],
    [
      linkAttributes.info,
      [
        [INFO_KIND, text(kind)],
        [INFO_DATA, [[MODE, kind === 'macvlan' ? uint32(mode) : uint16(mode)]]],
      ],
    ],
  ];
  if (macAddress !== undefined) attributes.push([linkAttributes.hardwareAddress, macAddress]);
  return {
    what: `create ${kind} ${name}`,
    type: messageTypes.newLink,
    flags: netlinkFlags.create | netlinkFlags.exclusive,
    body: Buffer.concat([linkHeader(index), encodeAttributes(attributes)]),
  };
}
