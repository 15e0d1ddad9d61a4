import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  emptyNetworkSpec,
  emptyPolicyRule,
  emptySubnet,
  type NetworkSpec,
  type Subnet,
} from './generated/objects.ts';
import { validateNetworkSpec } from './validate-network.ts';

const network = (change: Partial<NetworkSpec>): NetworkSpec => ({
  ...emptyNetworkSpec,
  name: 'front',
  ...change,
});
const subnets = (...changes: readonly Partial<Subnet>[]): NetworkSpec =>
  network({ subnets: changes.map((change) => ({ ...emptySubnet, subnet: '10.0.1.0/24', ...change })) });
const allow = (from: string, to: string, port = 0) =>
  network({ policy: { allow: [{ ...emptyPolicyRule, from, to, port }] } });

test('ordinary networks are accepted', () => {
  const parent = { parent: 'eth1' };
  for (const spec of [
    network({}),
    network({
      attachable: true,
      internal: true,
      encrypted: true,
      mtu: 1400,
      vni: 4097,
      labels: { tier: 'front' },
    }),
    network({ ingress: true }),
    network({ driver: 'macvlan', options: { ...parent, macvlan_mode: 'bridge' } }),
    network({ driver: 'ipvlan', options: { ...parent, ipvlan_mode: 'l3s' } }),
    network({ driver: 'macvlan', configFrom: 'lan' }),
    network({ driver: 'bridge', configFrom: 'lan' }),
    network({ configOnly: true, options: parent, subnets: subnets({}).subnets }),
    subnets({ ipRange: '10.0.1.128/25', gateway: '10.0.1.1', auxiliaryAddresses: { router: '10.0.1.2' } }),
    subnets({}, { subnet: '10.0.2.0/29' }),
    { ...subnets({}, { subnet: 'fd00:1::/64', gateway: 'fd00:1::1' }), ipv6: true, mtu: 1280 },
    allow('web', 'db', 5432),
    allow('*', 'web'),
    network({ policy: { allow: [] } }),
  ])
    validateNetworkSpec(spec);
});

test('each malformed field is refused by name', () => {
  const cases: [string, NetworkSpec, RegExp][] = [
    ['no name', network({ name: '' }), /^name: must not be empty/],
    ['a name with a space', network({ name: 'my net' }), /^name: "my net"/],
    ['a name of a node', network({ name: 'Host' }), /^name: "Host" is what each node has for itself/],
    ['a label without name', network({ labels: { ' ': 'x' } }), /^label: /],
    [
      'an option of nobody',
      network({ options: { color: 'red' } }),
      /^opt: "color" is unknown.*overlay; it has none/,
    ],
    [
      'an option of another driver',
      network({ driver: 'ipvlan', options: { parent: 'eth0', macvlan_mode: 'bridge' } }),
      /^opt: "macvlan_mode" is unknown to the driver ipvlan; known are parent and ipvlan_mode/,
    ],
    [
      'a mode that is none',
      network({ driver: 'macvlan', options: { parent: 'eth0', macvlan_mode: 'l2' } }),
      /^opt: macvlan_mode: "l2" must be bridge, vepa/,
    ],
    ['an empty parent', network({ driver: 'macvlan', options: { parent: '' } }), /^opt: parent: /],
    ['a macvlan of nothing', network({ driver: 'macvlan' }), /^driver: macvlan needs --opt parent=INTERFACE/],
    ['a bridge over all nodes', network({ driver: 'bridge' }), /^driver: a bridge ends at its node/],
    [
      'an encrypted macvlan',
      network({ driver: 'macvlan', encrypted: true }),
      /^encrypted: goes with .*overlay/,
    ],
    ['a macvlan with VNI', network({ driver: 'macvlan', vni: 5 }), /^opt: vxlanid_list: goes with/],
    ['an ingress macvlan', network({ driver: 'macvlan', ingress: true }), /^ingress: goes with/],
    [
      'a policy that nobody enforces',
      network({ driver: 'ipvlan', policy: { allow: [] } }),
      /^deny-by-default: goes with/,
    ],
    ['an internal ingress', network({ ingress: true, internal: true }), /^internal: the ingress network/],
    [
      'an attachable ingress',
      network({ ingress: true, attachable: true }),
      /^attachable: the ingress network/,
    ],
    [
      'an ingress of options',
      network({ ingress: true, configOnly: true }),
      /^config-only: the ingress network/,
    ],
    ['an ingress policy', network({ ingress: true, policy: { allow: [] } }), /^deny-by-default: the ingress/],
    ['options that are internal', network({ configOnly: true, internal: true }), /^internal: a config-only/],
    [
      'options that are attachable',
      network({ configOnly: true, attachable: true }),
      /^attachable: a config-/,
    ],
    [
      'options that are encrypted',
      network({ configOnly: true, encrypted: true }),
      /^encrypted: a config-only/,
    ],
    ['options with a VNI', network({ configOnly: true, vni: 7 }), /^opt: vxlanid_list: a config-only/],
    [
      'options with a policy',
      network({ configOnly: true, policy: { allow: [] } }),
      /^deny-by-default: a config/,
    ],
    ['an overlay of options', network({ configFrom: 'lan' }), /^config-from: goes with the drivers bridge/],
    [
      'options from options',
      network({ driver: 'macvlan', configOnly: true, configFrom: 'lan' }),
      /^config-from: a config-only network has no other/,
    ],
    [
      'a subnet twice said',
      network({ driver: 'macvlan', configFrom: 'lan', subnets: subnets({}).subnets }),
      /^subnet: comes from lan: leave it out/,
    ],
    [
      'an option twice said',
      network({ driver: 'macvlan', configFrom: 'lan', options: { parent: 'eth0' } }),
      /^opt: comes from lan/,
    ],
    [
      'an MTU twice said',
      network({ driver: 'macvlan', configFrom: 'lan', mtu: 1400 }),
      /^mtu: comes from lan/,
    ],
    ['a tiny MTU', network({ mtu: 100 }), /^mtu: 100 must be from 576 to 65535/],
    ['a tiny MTU for IPv6', network({ ipv6: true, mtu: 1000 }), /^mtu: 1000 must be from 1280/],
    ['half a byte', network({ mtu: 1400.5 }), /^mtu: 1400.5 must be a whole number/],
    [
      'a VNI of 25 bits',
      network({ vni: 2 ** 24 }),
      /^opt: vxlanid_list: 16777216 must be from 1 to 16777215/,
    ],
    ['an empty subnet', subnets({ subnet: '' }), /^subnet: "" must be a network such as 10.0.1.0\/24/],
    ['a subnet without length', subnets({ subnet: '10.0.1.0' }), /^subnet: "10.0.1.0" must be a network/],
    [
      'host bits',
      subnets({ subnet: '10.0.1.7/24' }),
      /^subnet: "10.0.1.7\/24" is an address .* 10.0.1.0\/24 is meant/,
    ],
    ['IPv6 that is off', subnets({ subnet: 'fd00::/64' }), /^subnet: fd00::\/64 is of IPv6: turn that on/],
    ['a small subnet', subnets({ subnet: '10.0.1.0/30' }), /^subnet: 10.0.1.0\/30 is too small/],
    [
      'loopback',
      subnets({ subnet: '127.1.0.0/16' }),
      /^subnet: 127.1.0.0\/16 has addresses of 127.0.0.0\/8: loopback/,
    ],
    ['link-local', subnets({ subnet: '169.254.1.0/24' }), /^subnet: .*link-local/],
    ['everything', subnets({ subnet: '0.0.0.0/0' }), /^subnet: 0.0.0.0\/0 has addresses of/],
    [
      'one subnet twice',
      subnets({}, {}),
      /^subnet: 10.0.1.0\/24 overlaps with 10.0.1.0\/24 of the same network/,
    ],
    [
      'one in another',
      subnets({}, { subnet: '10.0.0.0/16' }),
      /^subnet: 10.0.0.0\/16 overlaps with 10.0.1.0\/24/,
    ],
    ['a range elsewhere', subnets({ ipRange: '10.0.2.0/25' }), /^ip-range: 10.0.2.0\/25 must be a part of/],
    [
      'a range that is wider',
      subnets({ ipRange: '10.0.0.0/16' }),
      /^ip-range: 10.0.0.0\/16 must be a part of/,
    ],
    ['a range that is none', subnets({ ipRange: 'all' }), /^ip-range: "all" must be a network/],
    [
      'a gateway elsewhere',
      subnets({ gateway: '10.0.2.1' }),
      /^gateway: 10.0.2.1 must be an address in the subnet/,
    ],
    ['a gateway that is a name', subnets({ gateway: 'router' }), /^gateway: "router" must be an IP address/],
    [
      'a gateway of all',
      subnets({ gateway: '10.0.1.255' }),
      /^gateway: 10.0.1.255 is the first or last address/,
    ],
    [
      'an address without name',
      subnets({ auxiliaryAddresses: { '': '10.0.1.2' } }),
      /^aux-address: an address needs/,
    ],
    [
      'the gateway once more',
      subnets({ gateway: '10.0.1.1', auxiliaryAddresses: { router: '10.0.1.1' } }),
      /^aux-address: 10.0.1.1 of router is that of the gateway/,
    ],
    [
      'one address for two',
      subnets({ auxiliaryAddresses: { a: '10.0.1.9', b: '10.0.1.9' } }),
      /^aux-address: 10.0.1.9 of b is that of a/,
    ],
    ['a rule from nobody', allow('', 'web'), /^allow: must not be empty/],
    ['a rule to a pattern', allow('web', 'db*'), /^allow: "db\*"/],
    ['a rule for port 70000', allow('web', 'db', 70_000), /^allow: port 70000/],
  ];
  for (const [what, spec, message] of cases)
    assert.throws(() => validateNetworkSpec(spec), { code: 'invalid-argument', message }, what);
});
