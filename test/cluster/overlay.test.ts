// Services that talk to each other over networks of the cluster: three hosts, real containers, real traffic.

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { emptyPlacement, emptySubnet, type ServiceSpec, type Task } from '../../core/generated/objects.ts';
import { isWanted } from '../../core/task-state.ts';
import { Asking, ask, ECHO_PORT, echoContainer } from '../support/echo-service.ts';
import { eventually } from '../support/eventually.ts';
import {
  attachmentTo,
  echoImage,
  NetworkCluster,
  type Started,
  serverNames,
  serversIn,
  untilAnswered,
} from '../support/network-cluster.ts';
import { whyNoRealNode } from '../support/real-node.ts';
import { createService, tasksOf, untilRunning } from '../support/services.ts';

/** Enough answers to hear of six tasks: one is missed by all of them once in a million runs. */
const MANY = 80;

describe('services on networks of the cluster', { skip: whyNoRealNode() ?? false }, () => {
  let world: NetworkCluster;
  let web: Started;
  let client: Started;

  before(async () => {
    world = await NetworkCluster.start('tso', 3);
    await world.createNetwork('front');
    web = await start('web', 6, 'front');
    client = await start('client', 3, 'front');
  });
  after(async () => {
    await world?.[Symbol.asyncDispose]();
  });

  const start = (
    name: string,
    replicas: number,
    networkId: string,
    change: (spec: ServiceSpec) => ServiceSpec = (spec) => spec,
  ): Promise<Started> =>
    world.startEcho(name, {
      replicas,
      change: (spec) => {
        const networks = [{ ...attachmentTo(networkId), aliases: [`${name}-alias`] }];
        return change({ ...spec, task: { ...spec.task, networks } });
      },
    });
  const replicas = (count: number) => (spec: ServiceSpec) => ({
    ...spec,
    mode: { replicated: { replicas: count } },
  });

  const positionOf = async (task: Task | undefined): Promise<number> => {
    const ids = await Promise.all([0, 1, 2].map((position) => world.nodeId(position)));
    return ids.indexOf(task?.nodeId ?? '');
  };

  for (const how of ['tcp', 'udp'] as const)
    for (const name of ['web', 'WEB.', 'web-alias', 'tasks.web'])
      test(`each task of ${name} answers over ${how} on every node, and sees who asks`, async () => {
        const asked = await Promise.all(
          client.tasks.map(async (task) => ({
            task,
            answers: await ask({ task }, { host: name, how, count: MANY }),
          })),
        );
        for (const { task, answers } of asked) {
          assert.deepEqual(
            answers.filter(({ error }) => error !== ''),
            [],
          );
          if (name !== 'tasks.web')
            assert.deepEqual(
              [...new Set(answers.map(({ server }) => server))].sort(),
              serverNames(web.tasks),
            );
          const [own] = task.attachments[0]?.addresses ?? [];
          assert.deepEqual([...new Set(answers.map((answer) => answer.client))], [own]);
        }
      });

  describe('with IPv6', () => {
    let dual: Started;
    let direct: Started;
    let asker: Started;
    const askers = () => asker.tasks.map((task) => ({ task }));

    before(async () => {
      await world.createNetwork('dual', { ipv6: true });
      dual = await start('dual-web', 3, 'dual');
      direct = await start('dual-direct', 3, 'dual', (spec) => ({
        ...spec,
        endpoint: { ...spec.endpoint, mode: 'dnsrr' },
      }));
      asker = await start('dual-client', 3, 'dual');
    });
    after(async () => {
      await world?.remove('dual-web', 'dual-direct', 'dual-client');
      await eventually(() => world.manager.control.removeNetwork({ network: 'dual' }));
    });

    for (const family of [4, 6] as const)
      for (const how of ['tcp', 'udp'] as const) {
        test(`each task of a virtual address answers over ${how} by IPv${family}, and sees who asks`, async () => {
          for (const place of askers()) {
            const answers = await ask(place, { host: 'dual-web', how, family, count: MANY });
            assert.deepEqual(serversIn(answers), serverNames(dual.tasks));
            const own = place.task.attachments[0]?.addresses.find(
              (each) => each.includes(':') === (family === 6),
            );
            assert.deepEqual(new Set(answers.map((answer) => answer.client)), new Set([own]));
          }
        });

        test(`tasks without a virtual address answer over ${how} by IPv${family}, on this node and on others`, async () => {
          for (const place of askers())
            for (const { id, attachments } of direct.tasks) {
              const [attachment] = attachments;
              const host = attachment?.addresses.find((each) => each.includes(':') === (family === 6)) ?? '';
              const [answer] = await ask(place, { host, how, family });
              assert.equal(answer?.server, id.slice(0, 12), answer?.error);
              const [named] = await ask(place, { host: 'dual-direct', how, family });
              assert.equal(named?.error, '');
            }
        });
      }

    test('a task reaches itself by its addresses of both families', async () => {
      const [task] = dual.tasks;
      const { addresses = [] } = task?.attachments[0] ?? {};
      for (const host of addresses) {
        const [answer] = await ask({ task: task as Task }, { host });
        assert.equal(answer?.server, task?.id.slice(0, 12));
      }
      assert.equal(addresses.length, 2);
    });
  });

  test('a task reaches itself by the address of its service', async () => {
    const [task] = web.tasks as [Task];
    const answers = await ask({ task }, { host: 'web', count: MANY });
    assert.deepEqual(
      [...new Set(answers.map(({ server, error }) => server + error))].sort(),
      serverNames(web.tasks),
    );
  });

  test('a service without an address of its own has those of its tasks', async () => {
    const { tasks } = await start('direct', 3, 'front', (spec) => ({
      ...spec,
      endpoint: { ...spec.endpoint, mode: 'dnsrr' },
    }));
    const [task] = client.tasks as [Task];
    const answers = await ask({ task }, { host: 'direct', count: MANY });
    const servers = new Set(answers.map(({ server, error }) => server + error));
    assert.ok(
      [...servers].every((server) => serverNames(tasks).includes(server)),
      [...servers].join(),
    );
    await world.manager.control.removeService({ service: 'direct' });
  });

  test('networks are apart: names and addresses of one are nothing in the other', async () => {
    await world.createNetwork('back');
    const { service, tasks } = await start('db', 1, 'back');
    const [task] = client.tasks as [Task];
    assert.match((await ask({ task }, { host: 'db' }))[0]?.error ?? '', /^name:/);
    const [address = ''] = tasks[0]?.attachments[0]?.addresses ?? [];
    assert.notEqual((await ask({ task }, { host: address }))[0]?.error, '');
    await world.manager.control.removeService({ service: service.id });
  });

  test('a trace follows a connection hop by hop and names the one that is broken; an audit finds why, and mends it', async () => {
    const trace = await world.manager.cli('net', 'trace', 'client', `web:${ECHO_PORT}`);
    assert.equal(trace.code, 0, trace.stdout + trace.stderr);
    assert.match(trace.stdout, /dns: web is 10\.0\.1\.\d+\n.*vip: 6 tasks take connections\n/);
    assert.equal(trace.stdout.match(/: echo [\d.]+ ms, TCP port 8000 open/g)?.length, 6);
    const wrongPort = await world.manager.cli('net', 'trace', 'client', 'web:9');
    assert.equal(wrongPort.code, 1);
    assert.match(
      wrongPort.stdout,
      /TCP port 9: connection refused\n.*is its program listening on 0\.0\.0\.0:9\?/,
    );

    const [task] = web.tasks;
    const position = await positionOf(task);
    // The node looks by itself as well, and may be faster.
    await eventually(async () => {
      await world.cluster.node(position).inOverlay('ip', 'route', 'flush', 'proto', 'static');
      const audit = await world.manager.cli('net', 'audit');
      return audit.code === 1 && /network front: route .*: missing/.test(audit.stdout);
    });
    assert.equal((await world.manager.cli('net', 'audit', '--repair')).code, 0);
    assert.equal((await world.manager.cli('net', 'audit')).code, 0);
  });

  test('a policy of the network decides who may begin, and can be changed', async () => {
    const network = await world.createNetwork('guarded', {
      policy: { allow: [{ from: 'asker', to: 'vault', protocol: 'tcp', port: ECHO_PORT }] },
    });
    await start('vault', 2, 'guarded');
    const asker = await start('asker', 2, 'guarded');
    const stranger = await start('stranger', 2, 'guarded');
    const errorsOf = async ({ tasks }: Started, how: 'tcp' | 'udp') => {
      const answers = await Promise.all(
        tasks.map((task) => ask({ task }, { host: 'vault', how, count: 10 })),
      );
      return new Set(answers.flat().map(({ error }) => (error === '' ? 'answered' : 'refused')));
    };
    assert.deepEqual(await errorsOf(asker, 'tcp'), new Set(['answered']));
    assert.deepEqual(await errorsOf(asker, 'udp'), new Set(['refused']));
    assert.deepEqual(await errorsOf(stranger, 'tcp'), new Set(['refused']));

    const current = (await world.manager.control.getNetwork({ network: network.id, verbose: false })).network;
    const allow = [{ from: '*', to: 'vault', protocol: 'tcp' as const, port: 0 }];
    await world.manager.control.updateNetwork({
      networkId: network.id,
      version: current.meta.version,
      spec: { ...current.spec, policy: { allow } },
    });
    for (const task of stranger.tasks) await untilAnswered({ task }, { host: 'vault' });
    assert.deepEqual(await errorsOf(asker, 'udp'), new Set(['answered']));
    await world.remove('vault', 'asker', 'stranger');
  });

  test('a service that scales, or is updated task by task, never fails a request', async () => {
    const places = client.tasks.map((task) => ({ task }));
    const asking = places.flatMap((place) => [
      new Asking(place, { host: 'web' }),
      new Asking(place, { host: 'web', how: 'udp' }),
    ]);
    await world.update('web', replicas(3));
    await untilRunning(world.manager, web.service.id, 3);
    await world.update('web', replicas(8));
    await untilRunning(world.manager, web.service.id, 8);
    await world.update('web', (spec) => ({
      ...spec,
      task: { ...spec.task, forceUpdate: 1 },
      update: { ...spec.update, parallelism: 2, order: 'start-first', monitorMs: 100 },
    }));
    await eventually(async () => {
      const { service } = await world.manager.control.getService({ service: 'web' });
      assert.equal(service.updateStatus?.state, 'completed');
      return true;
    }, 60_000);
    for (const one of asking) await one[Symbol.asyncDispose]();
    assert.deepEqual(
      asking.flatMap(({ errors }) => errors),
      [],
    );
    assert.ok(asking.every(({ answered }) => answered > 50));
  });

  test('a connection lives on while its task is drained of new ones, until it ends', async () => {
    const { service, tasks } = await start('slow', 1, 'front', (spec) => ({
      ...spec,
      task: {
        ...spec.task,
        container: { ...spec.task.container, stopSignal: 'SIGUSR1', stopGracePeriodMs: 2_000 },
      },
    }));
    assert.equal(tasks.length, 1);
    const [task] = client.tasks as [Task];
    await using kept = new Asking({ task }, { host: 'slow', how: 'tcp-keep', pauseMs: 20 });
    await eventually(() => kept.answered > 5);
    await world.update('slow', (spec) => ({ ...spec, mode: { replicated: { replicas: 0 } } }));
    await untilAnswered({ task }, { host: 'slow' }, ({ error }) => /refused/.test(error));
    const before = kept.answered;
    await eventually(() => kept.answered > before + 5);
    assert.deepEqual(kept.errors, []);
    await eventually(() => kept.errors.length > 0);
    await world.manager.control.removeService({ service: service.id });
  });

  test('with a drain time connections and flows of a task live on for it, and new ones go to the others', async () => {
    const drained = await start('drained', 2, 'front', (spec) => ({
      ...spec,
      endpoint: { ...spec.endpoint, drainMs: 4_000 },
    }));
    const [task] = client.tasks as [Task];
    const kept = (['tcp-keep', 'udp-keep'] as const).flatMap((how) =>
      Array.from({ length: 12 }, () => new Asking({ task }, { host: 'drained', how, pauseMs: 20 })),
    );
    await eventually(() => kept.every(({ answered }) => answered > 5));
    const servers = kept.map(({ server }) => server);
    await world.update('drained', replicas(1));
    const stays = await eventually(async () => {
      const wanted = (await tasksOf(world.manager, drained.service.id)).filter(isWanted);
      return wanted.length === 1 && wanted[0];
    });
    await eventually(async () => {
      const answers = await ask({ task }, { host: 'drained', count: 30 });
      return serversIn(answers).join() === serverNames([stays]).join();
    });
    const before = kept.map(({ answered }) => answered);
    await eventually(() => kept.every(({ answered }, index) => answered > before[index]! + 20));
    assert.deepEqual(
      servers,
      kept.map(({ server }) => server),
      'each is where it was',
    );
    await using fresh = new Asking({ task }, { host: 'drained' });
    await untilRunning(world.manager, drained.service.id, 1);
    await eventually(async () => (await tasksOf(world.manager, drained.service.id)).length === 1);
    for (const one of [...kept, fresh]) await one[Symbol.asyncDispose]();
    assert.deepEqual(fresh.errors, []);
    const [name] = serverNames([stays]);
    assert.ok(kept.every(({ errors }, index) => errors.length === 0 || servers[index] !== name));
    await world.remove('drained');
  });

  test('a killed daemon leaves the traffic alone, and names are answered again when it is back', async () => {
    const { id } = await world.cluster.find(1);
    const here = client.tasks.find(({ nodeId }) => nodeId === id) as Task;
    const [vip = ''] = (
      await world.manager.control.getService({ service: 'web' })
    ).service.virtualAddresses.map(({ address }) => address);
    await using asking = new Asking({ task: here }, { host: vip });
    await world.cluster.node(1).killDaemon();
    await delay(300);
    await world.cluster.node(1).startDaemon();
    await untilAnswered({ task: here }, { host: 'web' });
    await delay(300);
    assert.ok(asking.answered > 50);
    assert.deepEqual(asking.errors, []);
  });

  test('what a node heard last counts after a kill, also while no manager answers', async () => {
    const [manager, worker] = [world.cluster.node(0), world.cluster.node(1)];
    const { id } = await world.cluster.find(1);
    const here = client.tasks.find(({ nodeId }) => nodeId === id) as Task;
    const { service } = await start('latest', 2, 'front');
    const [vip = ''] = service.virtualAddresses.map(({ address }) => address);
    await untilAnswered({ task: here }, { host: vip });
    await worker.killDaemon();
    await manager.killDaemon();
    await using asking = new Asking({ task: here }, { host: vip });
    await worker.startDaemon();
    await untilAnswered({ task: here }, { host: 'latest' });
    assert.deepEqual(asking.errors, []);
    await manager.startDaemon();
    await world.cluster.until(1, ({ status }) => status.state === 'ready');
    assert.deepEqual(asking.errors, []);
    await world.remove('latest');
  });

  test('what a lost node ran answers nobody any more, and answers again when it is back', async () => {
    const { id } = await world.cluster.find(2);
    const [task] = client.tasks.filter(({ nodeId }) => nodeId !== id) as [Task];
    world.cluster.lan.cut(2, [0, 1]);
    await world.cluster.until(2, ({ status }) => status.state === 'down');
    await untilRunning(world.manager, web.service.id, 8);
    const answers = await ask({ task }, { host: 'web', count: MANY });
    assert.deepEqual(
      answers.filter(({ error }) => error !== ''),
      [],
    );
    world.cluster.lan.heal();
    await world.cluster.until(2, ({ status }) => status.state === 'ready');
    await untilRunning(world.manager, web.service.id, 8);
    assert.equal((await ask({ task }, { host: 'web' }))[0]?.error, '');
  });

  test('a network that is full says so on the task, and goes on when it is widened', async () => {
    const small = await world.createNetwork('small', {
      subnets: [{ ...emptySubnet, subnet: '10.77.0.0/29' }],
    });
    const service = await createService(world.manager, 'many', {
      image: echoImage,
      replicas: 6,
      container: echoContainer(),
      change: (spec) => ({
        ...spec,
        task: {
          ...spec.task,
          networks: [{ networkId: small.id, aliases: [], virtualAddresses: [], options: {} }],
        },
      }),
    });
    await untilRunning(world.manager, service.id, 4);
    const { ok, steps } = await world.manager.control.explain({ target: 'many' });
    assert.equal(ok, false);
    assert.match(
      steps.map(({ text }) => text).join('\n'),
      /network small has no free address: 5 of 5 in use/,
    );

    const { network } = await world.manager.control.getNetwork({ network: 'small', verbose: false });
    await world.manager.control.updateNetwork({
      networkId: network.id,
      version: network.meta.version,
      spec: { ...network.spec, subnets: [{ ...emptySubnet, subnet: '10.77.0.0/28' }] },
    });
    await untilRunning(world.manager, service.id, 6);
    await world.manager.control.removeService({ service: service.id });
  });

  test('a network that a daemon has forgotten goes as well', async () => {
    // As after a kill between its writing down that the network is gone and the end of it.
    const node = world.cluster.node(2);
    const id = await world.nodeId(2);
    const network = await world.createNetwork('forgotten');
    const placement = { ...emptyPlacement, constraints: [`node.id==${id}`] };
    await start('lonely', 1, 'forgotten', (spec) => ({ ...spec, task: { ...spec.task, placement } }));
    const hasIt = async () => (await node.overlayPins()).some((pin) => pin.includes(network.id));
    assert.ok(await hasIt());
    await node.killDaemon();
    await world.remove('lonely');
    await rm(path.join(node.runDir, 'cluster-networks'));
    await node.startDaemon();
    await eventually(async () => !(await hasIt()));
    await world.manager.control.removeNetwork({ network: 'forgotten' });
  });

  test('a network goes from every node with its last task', async () => {
    for (const service of ['web', 'client']) await world.manager.control.removeService({ service });
    for (const node of world.cluster.nodes)
      await eventually(async () => (await node.overlayPins()).length === 0);
    await eventually(() => world.manager.control.removeNetwork({ network: 'front' }));
  });
});
