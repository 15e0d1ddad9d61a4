// Debian's Prometheus scrapes a real node and finds what dashboards of Swarm look for.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { freePort } from '../support/real-registry.ts';
import { createService, untilRunning } from '../support/services.ts';

const PROMETHEUS = '/usr/bin/prometheus';
const skip = whyNoRealNode() ?? (existsSync(PROMETHEUS) ? false : 'needs prometheus');
const image = 'localhost/bb:1';

test('Prometheus scrapes a node and answers questions about services, tasks and latencies', {
  skip,
}, async () => {
  await using node = await RealNode.start();
  await node.init();
  await node.importImage((await buildDemoImage({ name: image })).archive);
  const { id } = await createService(node, 'web', { image, replicas: 3 });
  await untilRunning(node, id, 3);
  const { metricsAddress } = await node.node.info({});
  const listen = `127.0.0.1:${await freePort()}`;
  const config = path.join(node.directory, 'prometheus.yml');
  await writeFile(
    config,
    `scrape_configs: [{job_name: tsswarm, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{targets: ['${metricsAddress}']}]}]\n`,
  );
  const flags = [
    `--config.file=${config}`,
    `--storage.tsdb.path=${node.directory}/tsdb`,
    `--web.listen-address=${listen}`,
  ];
  const prometheus = spawn(PROMETHEUS, flags, { stdio: 'ignore' });
  const ask = async (query: string): Promise<string[]> => {
    const response = await fetch(`http://${listen}/api/v1/query?query=${encodeURIComponent(query)}`);
    const { data } = (await response.json()) as { data: { result: { value: [number, string] }[] } };
    return data.result.map(({ value }) => value[1]);
  };

  try {
    await eventually(async () => (await ask('up{job="tsswarm"}'))[0] === '1', 30_000);

    await eventually(async () => (await ask('swarm_manager_tasks_total{state="running"}'))[0] === '3');
    assert.deepEqual(await ask('tsswarm_service_replicas_running{service_name="web"}'), ['3']);
    assert.deepEqual(await ask('tsswarm_service_replicas_desired{service_name="web"}'), ['3']);
    assert.deepEqual(await ask('swarm_manager_leader'), ['1']);
    assert.deepEqual(await ask('swarm_manager_nodes{state="ready"}'), ['1']);
    assert.deepEqual(await ask('swarm_node_manager'), ['1']);
    assert.deepEqual(await ask('tsswarm_node_problem'), ['0']);
    const [expires] = await ask('tsswarm_node_certificate_expires_timestamp_seconds - time()');
    assert.ok(Number(expires) > 89 * 24 * 3600, 'ninety days');
    assert.deepEqual(await ask('engine_daemon_container_states_containers{state="running"}'), ['3']);
    assert.deepEqual(await ask('swarm_dispatcher_scheduling_delay_seconds_count'), ['3']);
    for (const name of [
      'swarm_store_write_tx_latency_seconds_count',
      'swarm_raft_transaction_latency_seconds_count',
      'tsswarm_log_fsync_latency_seconds_count',
      'engine_daemon_container_actions_seconds_count{action="start"}',
      'tsswarm_rpc_latency_seconds_count{code="ok"}',
    ])
      assert.ok(Number((await ask(name))[0]) > 0, `${name} counts something`);
  } finally {
    const exit = once(prometheus, 'exit');
    prometheus.kill('SIGTERM');
    await exit;
  }
});
