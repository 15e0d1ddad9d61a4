// Builds the real engine, network and sockets of a daemon and runs it until it is told to stop.

import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import path from 'node:path';
import { DAY_MS } from '../agent/engine/images/collector.ts';
import { openEngine } from '../agent/engine/open.ts';
import { forbidCoreFile } from '../agent/linux/memory.ts';
import { engineLog, networkLog } from '../agent/log.ts';
import { AgentMetrics } from '../agent/metrics.ts';
import { ClusterNetworks, destroyClusterNetworks } from '../agent/network/cluster-networks.ts';
import { HostFirewall } from '../agent/network/host-firewall.ts';
import { destroyLocalNetwork, openLocalNetwork } from '../agent/network/local-network.ts';
import { destroyMemoryFiles } from '../agent/secrets/memory-files.ts';
import { SwarmError } from '../core/errors.ts';
import { VERSION } from '../core/version.ts';
import { NodeControlService } from '../proto/generated/node.ts';
import { RpcServer } from '../rpc/server.ts';
import { type DaemonConfig, defaultLogDriver } from './config.ts';
import { Daemon } from './daemon.ts';
import { engineId } from './identity.ts';
import { keepIdleMemoryLow } from './idle-memory.ts';
import { nodeLog } from './log.ts';
import { currentProgram } from './manager-process.ts';
import { addressOf, nodeMetrics, serveMetrics } from './metrics-server.ts';
import { nodeHandlers } from './node-api.ts';
import { registrySettings } from './registries-config.ts';

/** Returns after SIGTERM or SIGINT, when everything but the containers has ended. */
export async function runDaemon(config: DaemonConfig): Promise<void> {
  requireRoot();
  defaultLogDriver(config);
  await requireAlone(config);
  // It holds secrets.
  forbidCoreFile();
  for (const root of [config['data-root'], config['run-dir']])
    mkdirSync(root, { recursive: true, mode: 0o711 });
  const metrics = new AgentMetrics();
  let daemon: Daemon | undefined;
  await using engine = await openEngine({
    ...engineOptions(config),
    observe: (operation, durationMs, ok) => metrics.observe(operation, durationMs, ok),
    onDroppedLines: (lines) => metrics.countDroppedLines(lines),
    wantedImages: () => daemon?.wantedImages(),
    onImageRemoved: (reason, bytes) => metrics.countRemovedImage(reason, bytes),
  });
  metrics.watch(engine);
  await using network = await openLocalNetwork({ ...networkOptions(config), logger: networkLog });
  // From here on a failure has to end what runs already, or the process would stay half alive.
  await using started = new AsyncDisposableStack();
  await using firewall = await HostFirewall.open({
    dataPathPort: () => daemon?.networks?.dataPathPort,
    onChange: () => {
      network.repair();
      void daemon?.networks?.audit();
    },
    logger: networkLog,
  });
  daemon = await Daemon.open({
    config,
    program: currentProgram(),
    engine,
    firewallWarnings: () => firewall.warnings,
    onHealthCheck: (isSuccess) => metrics.countHealthCheck(isSuccess),
    openNetworks: (member) =>
      ClusterNetworks.open({
        ...networkOptions(config),
        ...member,
        local: network,
        onRepair: (drift) => metrics.countRepairs(drift),
        logger: networkLog,
      }),
  });
  started.defer(() => daemon.stop());
  const facts = nodeMetrics(() => daemon.facts);
  const metricsServer = await serveMetrics(config['metrics-addr'], [
    () => facts.metrics(),
    () => metrics.registry.metrics(),
    () => daemon.managerMetrics(),
  ]);
  started.defer(() => {
    metricsServer.close();
    metricsServer.closeAllConnections();
  });
  daemon.metricsAddress = addressOf(metricsServer);
  const server = new RpcServer();
  started.defer(() => server.stop());
  server.add(NodeControlService, nodeHandlers(daemon));
  await server.listen(nodeSocket(config), 0o660);
  const stopping = new AbortController();
  started.defer(() => stopping.abort());
  keepIdleMemoryLow(
    () => (engine.containerdPid === undefined ? [] : [engine.containerdPid]),
    stopping.signal,
  );
  nodeLog.info({ version: VERSION, 'data.root': config['data-root'] }, 'tsswarmd is ready');

  await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
  nodeLog.info('stopping; containers go on running');
}

/** Takes everything off the machine that a daemon with this configuration has left, except its data. */
export async function teardown(config: DaemonConfig): Promise<void> {
  requireRoot();
  await requireAlone(config);
  const engine = await openEngine(engineOptions(config));
  for (const { id } of await engine.containers.list()) await engine.containers.remove(id);
  await engine.shutdownContainerd();
  destroyMemoryFiles(path.join(config['run-dir'], 'secrets'));
  await destroyClusterNetworks({ ...networkOptions(config), logger: networkLog });
  await destroyLocalNetwork(networkOptions(config));
  rmSync(config['run-dir'], { recursive: true, force: true });
}

function engineOptions(config: DaemonConfig) {
  return {
    dataRoot: config['data-root'],
    runDir: config['run-dir'],
    engineId: engineId(config['data-root']),
    registries: registrySettings(config.registries, config['insecure-registry']),
    imagePolicy: {
      keepMs: config['image-keep-days'] * DAY_MS,
      highPercent: config['image-disk-high'],
      lowPercent: config['image-disk-low'],
    },
    containerdPath: config.containerd,
    runtime: config.runtime,
    log: engineLog,
  };
}

function networkOptions(config: DaemonConfig) {
  return {
    runDir: config['run-dir'],
    stateDir: path.join(config['data-root'], 'network'),
    engineId: engineId(config['data-root']),
    ...(config.subnet === '' ? undefined : { subnet: config.subnet }),
  };
}

function nodeSocket(config: DaemonConfig): string {
  return path.join(config['run-dir'], 'node.sock');
}

function requireRoot(): void {
  if (process.getuid?.() !== 0)
    throw new SwarmError(
      'permission-denied',
      'tsswarmd has to run as root: it makes namespaces, mounts and cgroups',
    );
}

/** Throws when another daemon answers on this run directory's socket. */
async function requireAlone(config: DaemonConfig): Promise<void> {
  const isTaken = await new Promise<boolean>((resolve) => {
    const socket = connect(nodeSocket(config));
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    // Nobody listens, or there is no socket at all.
    socket.on('error', () => resolve(false));
  });
  if (isTaken)
    throw new SwarmError(
      'failed-precondition',
      `a daemon is running already: it answers on ${nodeSocket(config)}`,
    );
}
