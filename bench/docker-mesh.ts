// The routing mesh as Docker lays it out, on two machines of a lab: bridge to the sandbox of the ingress, which chooses a
// container and hides the client behind an address of its own; bridge and VXLAN of the ingress network; the
// container's redirection to its own port. Where Docker has IPVS there is a rule of nftables, since not every kernel has IPVS:
// what it costs beside its rules is not in here.

import { join } from 'node:path';
import { createNamespace } from '../agent/linux/namespace.ts';
import { run } from '../test/network/lab.ts';
import type { OverlayHost } from '../test/network/overlay-lab.ts';

const BRIDGE_ADDRESS = '172.18.0.1';
const SANDBOX_ADDRESS = '172.18.0.2';
const VNI = 4096;
/** What VXLAN leaves of 1500. */
const MTU = 1450;
const PUBLISH_TABLE = [
  'add table ip mesh',
  'add chain ip mesh publish { type nat hook prerouting priority dstnat ; }',
];

export interface DockerMeshPort {
  readonly published: number;
  readonly target: number;
  /** The machine whose container serves it. */
  readonly host: OverlayHost;
}

/** Namespaces of the containers, by machine; the first machine takes the ports. Namespaces go with the lab. */
export function layDockerMesh(
  hosts: readonly [OverlayHost, OverlayHost],
  ports: readonly DockerMeshPort[],
): Map<OverlayHost, string> {
  const containers = new Map(
    hosts.map((host, index) => [host, layMachine(host, index + 1, hosts[1 - index]!)]),
  );
  const [entry] = hosts;
  const sandbox = join(entry.runDir, 'sandbox');
  const addressOf = (host: OverlayHost) => `10.9.0.${20 + hosts.indexOf(host)}`;
  const rules = (chain: string, line: (port: DockerMeshPort) => string) =>
    ports.map((port) => `add rule ip mesh ${chain} ${line(port)}`);
  nft(entry.path, [
    ...PUBLISH_TABLE,
    'add chain ip mesh out { type nat hook postrouting priority srcnat ; }',
    'add chain ip mesh forward { type filter hook forward priority filter ; }',
    'add rule ip mesh forward ct state established,related accept',
    ...rules('forward', ({ published }) => `tcp dport ${published} accept`),
    ...rules(
      'publish',
      ({ published }) =>
        `fib daddr type local tcp dport ${published} dnat to ${SANDBOX_ADDRESS}:${published}`,
    ),
    'add rule ip mesh out oifname gw fib saddr type local masquerade',
  ]);
  nft(sandbox, [
    ...PUBLISH_TABLE,
    'add chain ip mesh marked { type filter hook prerouting priority mangle ; }',
    'add chain ip mesh out { type nat hook postrouting priority srcnat ; }',
    ...rules('marked', ({ published }) => `tcp dport ${published} meta mark set 0x100`),
    ...rules('publish', ({ published, host }) => `tcp dport ${published} dnat to ${addressOf(host)}`),
    'add rule ip mesh out ip daddr 10.9.0.0/16 snat to 10.9.0.2',
  ]);
  for (const [host, path] of containers)
    nft(path, [
      ...PUBLISH_TABLE,
      ...ports
        .filter((port) => port.host === host)
        .map(
          ({ published, target }) => `add rule ip mesh publish tcp dport ${published} redirect to :${target}`,
        ),
    ]);
  return containers;
}

/** Returns the namespace of its container. */
function layMachine(host: OverlayHost, number: number, other: OverlayHost): string {
  const [sandbox, overlay, container] = ['sandbox', 'ingress', 'container'].map((name) => {
    const path = join(host.runDir, name);
    createNamespace(path, () => undefined);
    run(path, ['ip link set lo up']);
    return path;
  }) as [string, string, string];
  host.run('sysctl -qw net.ipv4.ip_forward=1');
  addBridge(host.path, 'gw');
  host.run(`ip address add ${BRIDGE_ADDRESS}/16 dev gw`);
  addBridge(overlay, 'br0');
  plug(host.path, 'gw', 'toSandbox', sandbox, 'eth1', `${SANDBOX_ADDRESS}/16`);
  plug(overlay, 'br0', 'toSandbox', sandbox, 'eth0', `10.9.0.${1 + number}/16`);
  plug(overlay, 'br0', 'toContainer', container, 'eth0', `10.9.0.${19 + number}/16`);
  run(sandbox, ['sysctl -qw net.ipv4.ip_forward=1']);
  run(sandbox, [`ip route add default via ${BRIDGE_ADDRESS}`]);
  host.run(
    `ip link add mesh0 type vxlan id ${VNI} dstport 4790 local ${host.address} remote ${other.address}`,
  );
  host.run('ip link set mesh0 netns', overlay);
  run(overlay, ['ip link set mesh0 master br0 up']);
  return container;
}

function addBridge(path: string, name: string): void {
  run(path, [`ip link add ${name} type bridge`]);
  run(path, [`ip link set ${name} up`]);
}

/** A port of a bridge, whose other end is in another namespace. */
function plug(path: string, bridge: string, port: string, to: string, name: string, address: string): void {
  run(path, [`ip link add ${port} mtu ${MTU} type veth peer name ${name} mtu ${MTU}`]);
  run(path, [`ip link set ${name} netns`, to]);
  run(path, [`ip link set ${port} master ${bridge} up`]);
  run(to, [`ip address add ${address} dev ${name}`]);
  run(to, [`ip link set ${name} up`]);
}

function nft(path: string, lines: readonly string[]): void {
  for (const line of lines) run(path, ['nft', line]);
}
