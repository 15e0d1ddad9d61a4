// From flags to a NetworkSpec: a new one for `network create`, a changed one for `network update`. Pure.

import { invalidField, messageOf } from '../../core/errors.ts';
import {
  emptyNetworkSpec,
  emptySubnet,
  type Network,
  type NetworkPolicy,
  type NetworkSpec,
  type Subnet,
} from '../../core/generated/objects.ts';
import { contains, covers, parseAddress, parsePrefix } from '../../core/ip-address.ts';
import type { FlagValues } from './flag.ts';
import { mergeLabels } from './labels.ts';
import type { createNetworkFlags, updateNetworkFlags } from './network-flags.ts';
import { formatRule } from './policy.ts';
import { parseBoolean, parseCount } from './units.ts';

export type CreateNetworkFlags = FlagValues<typeof createNetworkFlags>;
export type UpdateNetworkFlags = FlagValues<typeof updateNetworkFlags>;

/** Docker's names for what is a field here. */
const MTU_OPTIONS: readonly string[] = ['mtu', 'com.docker.network.driver.mtu'];
const VNI_OPTION = 'com.docker.network.driver.overlay.vxlanid_list';

/** Throws `invalid-argument` that names the flag. */
export function newNetworkSpec(name: string, flags: CreateNetworkFlags): NetworkSpec {
  const driver = flags.driver ?? 'overlay';
  const { encrypted, mtu, vni, options } = readOptions(flags.opt);
  const policy = newPolicy(flags);
  return {
    ...emptyNetworkSpec,
    name,
    driver,
    options,
    labels: Object.fromEntries(flags.label),
    internal: flags.internal ?? false,
    attachable: flags.attachable ?? false,
    ingress: flags.ingress ?? false,
    encrypted: flags.encrypted ?? encrypted,
    ipv6: flags.ipv6 ?? false,
    subnets: newSubnets(flags),
    mtu: flags.mtu ?? mtu,
    configOnly: flags['config-only'] ?? false,
    configFrom: flags['config-from'] ?? '',
    vni,
    ...(policy && { policy }),
  };
}

/** The network's spec with the changes asked for; what no flag names stays as it is. */
export function changedNetworkSpec(network: Network, flags: UpdateNetworkFlags): NetworkSpec {
  const { policy: current, ...spec } = network.spec;
  for (const key of flags['label-rm'])
    if (!Object.hasOwn(spec.labels, key))
      throw invalidField('label-rm', `key ${key} doesn't exist in the network's labels`);
  const policy = changedPolicy(current, flags);
  return {
    ...spec,
    labels: mergeLabels(spec.labels, flags['label-rm'], flags['label-add']),
    subnets: changedSubnets(network, flags['subnet-add'].flat()),
    ...(policy && { policy }),
  };
}

interface ReadOptions {
  readonly encrypted: boolean;
  readonly mtu: number;
  readonly vni: number;
  readonly options: Readonly<Record<string, string>>;
}

function readOptions(pairs: readonly (readonly [string, string])[]): ReadOptions {
  const options: Record<string, string> = {};
  let [encrypted, mtu, vni] = [false, 0, 0];
  for (const [key, value] of pairs) {
    if (key === 'encrypted') encrypted = value === '' || read(key, value, parseBoolean);
    else if (MTU_OPTIONS.includes(key)) mtu = read(key, value, parseCount);
    else if (key === VNI_OPTION) vni = read(key, value, parseVni);
    else options[key] = value;
  }
  return { encrypted, mtu, vni, options };
}

function parseVni(text: string): number {
  if (text.includes(',')) throw new Error('names several: a network has one');
  return parseCount(text);
}

function read<T>(key: string, value: string, parse: (text: string) => T): T {
  try {
    return parse(value);
  } catch (error) {
    throw invalidField('opt', `${key}: "${value}" ${messageOf(error)}`);
  }
}

function newPolicy(flags: CreateNetworkFlags): NetworkPolicy | undefined {
  if (flags.allow.length > 0 && flags['deny-by-default'] === false)
    throw invalidField('allow', 'goes with --deny-by-default: without it everything is allowed');
  return flags.allow.length > 0 || flags['deny-by-default'] ? { allow: flags.allow } : undefined;
}

function changedPolicy(
  current: NetworkPolicy | undefined,
  flags: UpdateNetworkFlags,
): NetworkPolicy | undefined {
  const { 'allow-add': added, 'allow-rm': removed, 'deny-by-default': isWanted } = flags;
  if (isWanted === false) {
    if (added.length > 0) throw invalidField('allow-add', 'goes with --deny-by-default');
    return undefined;
  }
  const rules = new Map((current?.allow ?? []).map((rule) => [formatRule(rule), rule]));
  for (const rule of removed)
    if (!rules.delete(formatRule(rule)))
      throw invalidField('allow-rm', `${formatRule(rule)} is not among what the network allows`);
  for (const rule of added) rules.set(formatRule(rule), rule);
  const isThere = current !== undefined || isWanted || added.length > 0;
  return isThere ? { allow: [...rules.values()] } : undefined;
}

/** Ranges, gateways and other addresses go to the subnet that they are in, as in Docker. */
function newSubnets(flags: CreateNetworkFlags): Subnet[] {
  const subnets = flags.subnet.flat().map((subnet) => ({ ...emptySubnet, subnet }));
  const twice = subnets.find(
    ({ subnet }, index) => subnets.findIndex((other) => other.subnet === subnet) < index,
  );
  if (twice !== undefined) throw invalidField('subnet', `${twice.subnet} is given twice`);
  const byText = new Map(subnets.map((subnet): [string, Subnet] => [subnet.subnet, subnet]));
  const change = (field: string, text: string, change: (subnet: Subnet) => Partial<Subnet>) => {
    const subnet = [...byText.values()].find((candidate) => isPartOf(candidate, text));
    if (subnet === undefined) throw invalidField(field, `no --subnet has ${text}`);
    byText.set(subnet.subnet, { ...subnet, ...change(subnet) });
  };
  const once = (field: string, { subnet }: Subnet, earlier: string, text: string) => {
    if (earlier !== '') throw invalidField(field, `${earlier} and ${text} are both in ${subnet}`);
    return text;
  };
  for (const text of flags['ip-range'].flat())
    change('ip-range', text, (subnet) => ({ ipRange: once('ip-range', subnet, subnet.ipRange, text) }));
  for (const text of flags.gateway.flat())
    change('gateway', text, (subnet) => ({ gateway: once('gateway', subnet, subnet.gateway, text) }));
  for (const [name, text] of flags['aux-address'])
    change('aux-address', text, ({ auxiliaryAddresses }) => ({
      auxiliaryAddresses: { ...auxiliaryAddresses, [name]: text },
    }));
  return [...byText.values()];
}

/** Of an address or a range. */
function isPartOf({ subnet }: Subnet, text: string): boolean {
  const outer = parsePrefix(subnet);
  if (outer === undefined) return false;
  const address = parseAddress(text);
  if (address !== undefined) return contains(outer, address);
  const inner = parsePrefix(text);
  return inner !== undefined && covers(outer, inner);
}

/** A subnet that covers one that is there takes its place, with its gateway and what it withholds. */
function changedSubnets({ spec, subnets }: Network, added: readonly string[]): readonly Subnet[] {
  if (added.length === 0) return spec.subnets;
  const current = spec.subnets.length > 0 ? spec.subnets : subnets;
  return added.reduce((list: readonly Subnet[], text) => {
    const covered = list.filter(({ subnet }) => isPartOf({ ...emptySubnet, subnet: text }, subnet));
    const [narrower] = covered;
    const kept = list.filter((subnet) => !covered.includes(subnet));
    return [
      ...kept,
      narrower === undefined ? { ...emptySubnet, subnet: text } : { ...narrower, subnet: text, ipRange: '' },
    ];
  }, current);
}
