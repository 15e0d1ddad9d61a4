// One node for real: daemon, manager, containerd, a runtime, a registry, and containers that do something.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { emptyPortConfig, emptyResourceLimits } from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { missingForRegistry, type RealRegistry, startRegistry } from '../support/real-registry.ts';
import { createService, linesOf, serviceSpec, tasksOf, untilRunning } from '../support/services.ts';

const skip = whyNoRealNode() ?? (missingForRegistry || false);

describe('a node', { skip }, () => {
  let node: RealNode;
  let registry: RealRegistry;
  let image: string;
  let digest: string;

  before(async () => {
    registry = await startRegistry();
    digest = await registry.push('lib/bb', '1', await buildDemoImage({ name: 'bb:1' }));
    image = `${registry.host}/lib/bb:1`;
    node = await RealNode.start();
    await node.init();
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  const remove = async (...names: readonly string[]) => {
    for (const name of names) await node.control.removeService({ service: name });
    await node.untilEmpty();
  };

  test('runs an image of a real registry, by tag and by digest', async () => {
    const byTag = await createService(node, 'tag', { image, replicas: 2 });
    const byDigest = await createService(node, 'digest', { image: `${image}@${digest}` });

    await untilRunning(node, byTag.id, 2);
    await untilRunning(node, byDigest.id, 1);

    const { images } = await node.node.listImages({});
    assert.ok(images.some(({ tags }) => tags.includes(image)));
    await remove('tag', 'digest');
  });

  test('gives a task its command, environment, user, directory, host name and limits', async () => {
    const script = 'echo "$GREETING $(id -u):$(id -g) $(pwd) $(hostname)"; exec sleep 1000';
    const service = await createService(node, 'shape', {
      image,
      script,
      container: { env: ['GREETING=hello'], user: 'web', workdir: '/tmp', hostname: 'task-host' },
      change: (spec) => ({
        ...spec,
        task: {
          ...spec.task,
          container: { ...spec.task.container, stopGracePeriodMs: 0 },
          resources: {
            ...spec.task.resources,
            limits: { ...emptyResourceLimits, memoryBytes: 32 * 2 ** 20, cpuNanos: 5e8, pids: 20 },
          },
        },
      }),
    });
    const [task] = await untilRunning(node, service.id, 1);

    await eventually(async () => {
      const lines = (await linesOf(node, service.id)).get(task?.id ?? '');
      assert.deepEqual(lines, ['hello 1000:1000 /tmp task-host']);
      return true;
    });
    assert.equal(
      cgroupValue(task?.status.container?.pid ?? 0, 'memory', 'memory.limit_in_bytes', 'memory.max'),
      String(32 * 2 ** 20),
    );
    assert.equal(cgroupValue(task?.status.container?.pid ?? 0, 'pids', 'pids.max', 'pids.max'), '20');
    await remove('shape');
  });

  test('restarts what ends, tells its exit code, and keeps its log', async () => {
    const service = await createService(node, 'crash', {
      image,
      script: 'echo last words; exit 7',
      change: once,
    });

    await eventually(async () => {
      const tasks = await tasksOf(node, service.id);
      return tasks.filter((task) => task.status.state === 'failed').length >= 2;
    }, 20_000);
    const failed = (await tasksOf(node, service.id)).filter((task) => task.status.state === 'failed');
    assert.ok(
      failed.every(
        (task) => task.status.error === 'task: non-zero exit (7)' && task.status.container?.exitCode === 7,
      ),
    );
    const lines = await linesOf(node, service.id);
    assert.deepEqual(lines.get(failed[0]?.id ?? ''), ['last words']);
    await remove('crash');
  });

  test('publishes a port in host mode, reachable on loopback, and says which', async () => {
    const web =
      'mkdir /tmp/w; hostname > /tmp/w/index.html; trap "exit 0" TERM; httpd -f -p 8080 -h /tmp/w & wait $!';
    const port = { ...emptyPortConfig, targetPort: 8080, publishedPort: 0, publishMode: 'host' } as const;
    const service = await createService(node, 'web', { image, replicas: 2, script: web, ports: [port] });
    const tasks = await untilRunning(node, service.id, 2);

    const answers = await Promise.all(
      tasks.map((task) =>
        eventually(async () => {
          const response = await fetch(`http://127.0.0.1:${task.status.ports[0]?.publishedPort}/`);
          return (await response.text()).trim();
        }),
      ),
    );

    assert.deepEqual(new Set(answers), new Set(tasks.map((task) => task.id.slice(0, 12))));
    await remove('web');
  });

  test('a second task that wants the same host port waits, and why says what for', async () => {
    const port = {
      ...emptyPortConfig,
      targetPort: 8080,
      publishedPort: 18_080,
      publishMode: 'host',
    } as const;
    const service = await createService(node, 'fixed', { image, replicas: 2, ports: [port] });
    await untilRunning(node, service.id, 1);

    const why = await eventually(async () => {
      const answer = await node.control.explain({ target: 'fixed' });
      assert.match(JSON.stringify(answer.steps), /host-mode port already in use on 1 node/);
      return answer;
    });

    assert.equal(why.ok, false);
    assert.ok(why.steps.some((step) => step.remedy.includes('publish another port')));
    await remove('fixed');
  });

  test('a bad command, a missing image and an unknown user are told on the task', async () => {
    const cases = [
      {
        name: 'nocommand',
        options: { image, container: { command: ['/no/such/program'] } },
        expect: /no\/such\/program/,
      },
      {
        name: 'noimage',
        options: { image: `${registry.host}/lib/none:1` },
        expect: /No such image: .*lib\/none:1/,
      },
      { name: 'nouser', options: { image, container: { user: 'nobody-here' } }, expect: /nobody-here/ },
    ];
    for (const { name, options, expect } of cases) {
      const service = await createService(node, name, options);
      await eventually(async () => {
        const errors = (await tasksOf(node, service.id)).map((task) => task.status.error).join('\n');
        assert.match(errors, expect);
        return true;
      });
      await remove(name);
    }
  });

  test('a rolling update replaces tasks one by one and never stops them all', async () => {
    const service = await createService(node, 'roll', { image, replicas: 3, change: quickUpdates });
    await untilRunning(node, service.id, 3);
    const spec = serviceSpec('roll', {
      image,
      replicas: 3,
      container: { env: ['RELEASE=2'] },
      change: quickUpdates,
    });
    let fewest = 3;

    await node.control.updateService({
      serviceId: service.id,
      version: service.specVersion,
      spec,
      rollback: false,
    });
    await eventually(async () => {
      const { services } = await node.control.listServices({});
      const summary = services.find(({ service: { id } }) => id === service.id);
      fewest = Math.min(fewest, summary?.runningTasks ?? 0);
      return summary?.service.updateStatus?.state === 'completed';
    }, 30_000);

    assert.ok(fewest >= 2, `at one moment only ${fewest} of 3 ran`);
    const running = await untilRunning(node, service.id, 3);
    assert.ok(running.every((task) => task.specVersion === 2));
    await remove('roll');
  });

  test('a removed service leaves no container, no log file and no network behind', async () => {
    const service = await createService(node, 'gone', {
      image,
      replicas: 4,
      script: 'echo here; exec sleep 1000',
      change: noGrace,
    });
    await untilRunning(node, service.id, 4);

    await remove('gone');

    await eventually(async () => (await tasksOf(node, service.id)).length === 0);
    const { containersRunning, containersStopped } = await node.node.info({});
    assert.equal(containersRunning + containersStopped, 0);
  });
});

function once(spec: ReturnType<typeof serviceSpec>) {
  return { ...spec, task: { ...spec.task, restart: { ...spec.task.restart, delayMs: 50 } } };
}

function quickUpdates(spec: ReturnType<typeof serviceSpec>) {
  return { ...spec, update: { ...spec.update, monitorMs: 100 } };
}

function noGrace(spec: ReturnType<typeof serviceSpec>) {
  return { ...spec, task: { ...spec.task, container: { ...spec.task.container, stopGracePeriodMs: 0 } } };
}

/** A value of the cgroup that a process is in, on v1 and v2. */
function cgroupValue(pid: number, controller: string, v1File: string, v2File: string): string {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n');
  const v1 = lines.map((line) => line.split(':')).find(([, names]) => names?.split(',').includes(controller));
  if (v1 !== undefined) return readFileSync(`/sys/fs/cgroup/${controller}${v1[2]}/${v1File}`, 'utf8').trim();
  const unified = lines.find((line) => line.startsWith('0::'))?.slice(3);
  return readFileSync(`/sys/fs/cgroup${unified}/${v2File}`, 'utf8').trim();
}
