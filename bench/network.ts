// The overlay: how long a container waits for its network, how long a service's change takes among a thousand and that of
// a thousand published ports, how many names a core serves, and what a connection costs (mesh.ts). In namespaces: the
// machine's own network is not touched.

import { join } from 'node:path';
import type { OverlayNetwork } from '../agent/network/overlay/overlay.ts';
import { CallableProgram } from '../test/network/lab.ts';
import { ingress, type OverlayHost, OverlayLab } from '../test/network/overlay-lab.ts';
import { discoveryBench } from './discovery.ts';
import type { BenchOptions } from './main.ts';
import { meshBench } from './mesh.ts';
import { againstFloor, againstLimit, median, percentile, type Row } from './report.ts';

const WIRINGS = 400;
const WIRINGS_QUICK = 100;
const SERVICES = 1000;
const BACKENDS = 16;
const TASKS = 20;
const CHANGES = 400;
const UPDATES = 2000;
const PORTS = 1000;
const PORT_UPDATES = 200;
const DNS_SECONDS = 10;
const DNS_SECONDS_QUICK = 3;
const DNS_IN_FLIGHT = 64;
const WIRING_MS_MAX = 2;
const UPDATE_MS_MAX = 0.1;
const QUESTIONS_MIN = 50_000;
const MICROS_PER_SECOND = 1e6;

const network: OverlayNetwork = {
  id: 'bench',
  vni: 0x100001,
  subnets: [{ subnet: '10.0.0.0/16', gateway: '10.0.0.1' }],
  isInternal: false,
};

/** Bars: see mesh.ts and discovery.ts; wiring < 2 ms and a service's update among 1,000 < 0.1 ms (medians); 50,000 names a second of one core. */
export async function networkBench(options: BenchOptions): Promise<Row[]> {
  return [
    ...(await overlayBench(options.isQuick)),
    ...(await meshBench(options.isQuick)),
    ...(await discoveryBench(options)),
  ];
}

async function overlayBench(isQuick: boolean): Promise<Row[]> {
  await using lab = new OverlayLab(1);
  await lab.ready();
  const host = lab.hosts[0]!;
  await host.ensure(network);
  return [
    ...(await measureWiring(host, isQuick ? WIRINGS_QUICK : WIRINGS)),
    ...(await measureUpdates(host)),
    ...(await measurePorts(host)),
    ...(await measureNames(lab, host, isQuick ? DNS_SECONDS_QUICK : DNS_SECONDS)),
    ...(await measureServices(lab, host)),
  ];
}

async function measureWiring(host: OverlayHost, count: number): Promise<Row[]> {
  const folder = join(host.runDir, 'containers');
  const argument = { networkId: network.id, folder, count };
  const { namespaceMs, attachMs, detachMs } = await host.overlay.call<
    Record<'namespaceMs' | 'attachMs' | 'detachMs', number[]>
  >('measureWiring', argument);
  const wholeMs = attachMs.map((ms, index) => ms + namespaceMs[index]!);
  return [
    againstLimit('container wired, namespace included', 'ms', median(wholeMs), WIRING_MS_MAX),
    { what: 'the same, p99', value: percentile(wholeMs, 0.99), unit: 'ms' },
    { what: 'the same, without making the namespace', value: median(attachMs), unit: 'ms' },
    { what: 'container unwired', value: median(detachMs), unit: 'ms' },
  ];
}

async function measureUpdates(host: OverlayHost): Promise<Row[]> {
  const argument = { networkId: network.id, services: SERVICES, backends: BACKENDS, rounds: UPDATES };
  const times = await host.overlay.call<number[]>('measureUpdates', argument);
  return [
    againstLimit(
      `one of ${SERVICES} services changed, ${BACKENDS} backends`,
      'ms',
      median(times),
      UPDATE_MS_MAX,
    ),
    { what: 'the same, p99', value: percentile(times, 0.99), unit: 'ms' },
  ];
}

async function measurePorts(host: OverlayHost): Promise<Row[]> {
  await host.ensure(ingress);
  const argument = { networkId: ingress.id, ports: PORTS, backends: BACKENDS, rounds: PORT_UPDATES };
  const { allMs, changeMs } = await host.overlay.call<{ allMs: number; changeMs: number[] }>(
    'measurePorts',
    argument,
  );
  return [
    { what: `${PORTS} ports published, ${BACKENDS} backends`, value: allMs, unit: 'ms' },
    { what: 'one of them changed', value: median(changeMs), unit: 'ms' },
  ];
}

/** From what the managers say to the kernel, as an agent has it; what a connection costs among them: mesh.ts. */
async function measureServices(lab: OverlayLab, host: OverlayHost): Promise<Row[]> {
  const args = [join(host.runDir, 'agent'), host.address];
  const program = lab.program(host.path, 'agent-network-process.ts', args);
  const first = await program.line();
  if (first !== 'ready') throw new Error(`agent-network-process.ts: ${first}`);
  const agent = new CallableProgram(program);
  const size = { services: SERVICES, tasks: TASKS };
  const { ms, bytes } = await agent.call<{ ms: number; bytes: number }>('learn', size);
  const changes = await agent.call<number[]>('change', { ...size, rounds: CHANGES });
  const what = `${SERVICES} services of ${TASKS} tasks`;
  return [
    { what: `an agent learns of ${what}`, value: Math.round(ms), unit: 'ms' },
    { what: 'and grows by', value: Math.round(bytes / 1e6), unit: 'MB' },
    { what: 'one of their tasks stops serving, or serves', value: median(changes), unit: 'ms' },
    { what: 'the same, p99', value: percentile(changes, 0.99), unit: 'ms' },
  ];
}

async function measureNames(lab: OverlayLab, host: OverlayHost, seconds: number): Promise<Row[]> {
  const names = Array.from({ length: SERVICES }, (_, index) => ({
    name: `service${index}`,
    addresses: ['10.0.0.3'],
  }));
  await host.apply(network.id, { names: [[{ name: 'web', addresses: ['10.0.0.2'] }, ...names]] });
  const endpoint = host.endpoint(network.id, '10.0.0.10');
  await host.overlay.call('attach', endpoint);
  const args = [String(seconds), String(DNS_IN_FLIGHT)];
  const load = lab.program(endpoint.namespacePath, 'dns-load.ts', args);
  await load.line();
  const before = await host.overlay.call<number>('cpuMicros');
  const answered = Number(await load.line((seconds + 5) * 1000));
  const cpuSeconds = ((await host.overlay.call<number>('cpuMicros')) - before) / MICROS_PER_SECOND;
  return [
    againstFloor('names served in a second of one core', '1/s', answered / cpuSeconds, QUESTIONS_MIN),
    { what: 'the same, in a second, client beside it', value: Math.round(answered / seconds), unit: '1/s' },
  ];
}
