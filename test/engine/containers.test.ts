import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { EngineContainers } from '../../agent/engine/containers/containers.ts';
import { hasCode } from '../../core/errors.ts';
import { emptyMount, emptyResourceLimits } from '../../core/generated/objects.ts';
import {
  aContainer,
  collectLogs,
  hasCrun,
  importDemoImage,
  missingForEngine,
  openTestEngine,
  runToEnd,
  type TestEngine,
} from '../support/engine.ts';
import { eventually } from '../support/eventually.ts';

for (const runtime of ['runc', 'crun'] as const) {
  const skip = missingForEngine || (runtime === 'crun' && !hasCrun ? 'needs crun' : false);
  describe(`containers on ${runtime}`, { skip }, () => {
    let own: TestEngine;
    const containers = () => own.engine.containers;
    const shell = (script: string, overrides = {}) =>
      runToEnd(own.engine, { args: ['sh', '-c', script], ...overrides });

    before(async () => {
      own = await openTestEngine({ runtime });
      await importDemoImage(own.engine);
      await importDemoImage(own.engine, { name: 'layered:1', layers: [{ 'etc/motd': 'two layers\n' }] });
    });
    after(async () => {
      await own?.[Symbol.asyncDispose]();
    });

    test('the chosen runtime is the one that is described', async () => {
      const description = await own.engine.describe();

      assert.match(description.runtime, new RegExp(`^${runtime} \\d`));
      assert.match(description.containerdVersion, /^\d/);
    });

    test('a container tells its exit code and what it wrote on both streams', async () => {
      const result = await shell('echo out; echo err >&2; printf unfinished; exit 7');

      assert.deepEqual(result, { exitCode: 7, stdout: 'out\nunfinished', stderr: 'err\n' });
    });

    test('a container has its hostname, environment, working directory and hosts file', async () => {
      const script = 'hostname; pwd; echo $COLOUR $PATH; cat /etc/hostname; cat /etc/hosts';
      const { stdout } = await shell(script, { hostname: 'box', workdir: '/tmp', env: ['COLOUR=red'] });

      assert.match(stdout, /^box\n\/tmp\nred \/bin\nbox\n127\.0\.0\.1\tlocalhost\n/);
    });

    test('containers that come and go at once, the first and the last of their shims too, all run', async () => {
      for (let round = 0; round < 3; round++) {
        const configs = Array.from({ length: 12 }, () => aContainer());
        await Promise.all(configs.map((config) => containers().create(config)));
        await Promise.all(configs.map(({ id }) => containers().start(id)));

        const states = (await containers().list()).map(({ status }) => status.state);
        assert.deepEqual(new Set(states), new Set(['running']));

        await Promise.all(configs.map(({ id }) => containers().remove(id)));
      }
    });

    test('a command replaces the entry point and drops the default arguments', async () => {
      const result = await runToEnd(own.engine, { command: ['echo', 'hi'], args: ['you'] });

      assert.equal(result.stdout, 'hi you\n');
    });

    test('users and groups are looked up in the image, also in one of several layers', async () => {
      const ids = async (overrides: object) =>
        (await shell('id -u; id -g; id -G', overrides)).stdout.split('\n').slice(0, 3);

      assert.deepEqual(await ids({ user: 'web' }), ['1000', '1000', '1000 2000']);
      assert.deepEqual(await ids({ user: 'web:video', image: 'layered:1' }), ['1000', '44', '44']);
      assert.deepEqual(await ids({ user: '4711' }), ['4711', '0', '0']);
      assert.deepEqual(await ids({ user: '4711:4712', groups: ['video', '99'] }), [
        '4711',
        '4712',
        '4712 44 99',
      ]);
      await assert.rejects(
        containers().create(aContainer({ user: 'ghost' })),
        (error) => hasCode(error, 'invalid-argument') && /unable to find user ghost/.test(error.message),
      );
    });

    test('a process has the default capabilities, and none as another user', async () => {
      const capabilities = async (user: string) =>
        (await shell('grep -E "^(Cap|Seccomp:|NoNewPrivs)" /proc/self/status', { user })).stdout;

      assert.match(
        await capabilities(''),
        /CapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n/,
      );
      assert.match(await capabilities('web'), /CapPrm:\t0{16}\nCapEff:\t0{16}\nCapBnd:\t00000000a80425fb\n/);
      assert.match(await capabilities(''), /NoNewPrivs:\t0\nSeccomp:\t2\n/);
    });

    test('what Docker forbids is forbidden', async () => {
      const { stdout } = await shell(
        'mount -t tmpfs x /tmp 2>&1; unshare -m true 2>&1; echo b > /proc/sysrq-trigger; cat /proc/kcore | wc -c; ls /sys/firmware | wc -l',
      );

      assert.match(stdout, /mount: .*(?:denied|permitted)/);
      assert.match(stdout, /unshare: .*not permitted/);
      assert.match(stdout, /^0\n0\n$/m);
    });

    test('a command that is missing or no program is refused with the code a shell gives', async () => {
      const failure = async (args: string[]) => {
        const config = aContainer({ args });
        await containers().create(config);
        try {
          await containers().start(config.id);
          return assert.fail('started');
        } catch (error) {
          assert.ok(hasCode(error, 'invalid-argument'), String(error));
          return `${error.message} ${error.hint}`;
        } finally {
          await containers().remove(config.id);
        }
      };

      assert.match(await failure(['nope']), /"nope": executable file not found.*127/s);
      assert.match(await failure(['/nope/nope']), /executable file not found.*127/s);
      assert.match(await failure(['/etc/passwd']), /cannot be executed.*126/s);
    });

    test('limits are set in the cgroup', async () => {
      const config = aContainer({
        limits: { ...emptyResourceLimits, cpuNanos: 500_000_000, memoryBytes: 32 * 2 ** 20, pids: 33 },
        reservedMemoryBytes: 16 * 2 ** 20,
      });
      await containers().create(config);
      await containers().start(config.id);

      const read = (controller: string, file: string) => {
        const group = `tsswarm/${own.options.engineId}/${config.id}`;
        const unified = path.join('/sys/fs/cgroup', group);
        return readFileSync(
          path.join(existsSync(unified) ? unified : `/sys/fs/cgroup/${controller}/${group}`, file),
          'utf8',
        ).trim();
      };
      const { cgroupVersion } = await own.engine.describe();
      if (cgroupVersion === '2') {
        assert.equal(read('', 'memory.max'), String(32 * 2 ** 20));
        assert.equal(read('', 'cpu.max'), '50000 100000');
        assert.equal(read('', 'pids.max'), '33');
      } else {
        assert.equal(read('memory', 'memory.limit_in_bytes'), String(32 * 2 ** 20));
        assert.equal(read('memory', 'memory.soft_limit_in_bytes'), String(16 * 2 ** 20));
        assert.equal(read('cpu', 'cpu.cfs_quota_us'), '50000');
        assert.equal(read('pids', 'pids.max'), '33');
      }
      await containers().remove(config.id);
    });

    test('a container that takes too much memory is reported as out of memory', async () => {
      const config = aContainer({
        args: ['sh', '-c', 'tail /dev/zero'],
        limits: { ...emptyResourceLimits, cpuNanos: 0, memoryBytes: 16 * 2 ** 20, pids: 0 },
      });
      await containers().create(config);
      await containers().start(config.id);

      const exit = await containers().wait(config.id);

      assert.equal(exit.outOfMemory, true);
      assert.notEqual(exit.exitCode, 0);
      await containers().remove(config.id);
    });

    test('stop sends the stop signal, and kills after the grace period', async () => {
      const polite = aContainer({
        args: ['sh', '-c', 'trap "exit 3" USR1; echo up; while :; do sleep 0.1; done'],
        stopSignal: 'USR1',
      });
      const deaf = aContainer({ args: ['sh', '-c', 'trap "" TERM; echo up; while :; do sleep 0.1; done'] });
      for (const config of [polite, deaf]) {
        await containers().create(config);
        await containers().start(config.id);
        await eventually(async () => (await collectLogs(own.engine, config.id)).length > 0);
      }

      await containers().stop(polite.id, 10_000);
      await containers().stop(deaf.id, 300);

      assert.equal((await containers().wait(polite.id)).exitCode, 3);
      assert.equal((await containers().wait(deaf.id)).exitCode, 137);
      for (const { id } of [polite, deaf]) await containers().remove(id);
    });

    test('an engine that is closed in the middle of a stop lets go of it, and the container lives', async () => {
      const deaf = aContainer({ args: ['sh', '-c', 'trap "" TERM; echo up; while :; do sleep 0.1; done'] });
      await containers().create(deaf);
      await containers().start(deaf.id);
      await eventually(async () => (await collectLogs(own.engine, deaf.id)).length > 0);
      const stopping = assert.rejects(containers().stop(deaf.id, 60_000), /the engine is closed/);

      await own.reopen();

      await stopping;
      assert.equal((await containers().inspect(deaf.id))?.status.state, 'running');
      await containers().stop(deaf.id, 0);
      await containers().remove(deaf.id);
    });

    test('a terminal gives one stream', async () => {
      const { stdout, stderr } = await shell('test -t 1 && echo terminal; echo more >&2', { tty: true });

      assert.equal(stdout, 'terminal\r\nmore\r\n');
      assert.equal(stderr, '');
    });

    test('directories, volumes and temporary file systems are mounted where asked', async () => {
      const shared = path.join(path.dirname(own.options.dataRoot), 'shared');
      mkdirSync(shared);
      writeFileSync(path.join(shared, 'note'), 'from outside\n');
      const mount = emptyMount;
      const mounts = [
        { ...mount, type: 'bind' as const, source: shared, target: '/in', readOnly: true },
        { ...mount, type: 'volume' as const, source: 'keep', target: '/keep' },
        { ...mount, type: 'volume' as const, target: '/scratch' },
        { ...mount, type: 'tmpfs' as const, target: '/quick', tmpfsSizeBytes: 2 ** 20, tmpfsMode: 0o700 },
      ];

      const first = await shell(
        'cat /in/note; touch /in/x 2>&1; echo 1 > /keep/a; echo 1 > /scratch/b; stat -c %a /quick; df -k /quick | tail -1',
        { mounts },
      );
      const second = await shell('ls /keep /scratch', { mounts });

      assert.match(first.stdout, /^from outside\ntouch: \/in\/x: Read-only file system\n700\ntmpfs +1024 /);
      assert.equal(second.stdout, '/keep:\na\n\n/scratch:\n');
    });

    test("an empty volume starts with the image's files, owners and modes", async () => {
      await importDemoImage(own.engine, {
        name: 'vol:1',
        config: { Volumes: { '/home/web': {}, '/srv': {} }, User: 'web' },
      });
      const mount = { ...emptyMount, source: 'etc-copy', target: '/etc' };
      const { stdout } = await shell(
        'stat -c "%u %g %a" /home/web /srv; touch /home/web/x && echo writable; ls /etc; id -un',
        { image: 'vol:1', mounts: [mount] },
      );

      assert.match(stdout, /^1000 1000 755\n0 0 755\nwritable\n(?:.*\n)*passwd\n(?:.*\n)*web\n$/);
      assert.deepEqual(readdirSync(path.join(own.options.dataRoot, 'volumes')).includes('etc-copy'), true);
    });

    test('a read-only container cannot write to its root', async () => {
      const { stdout } = await shell('touch /x 2>&1; touch /dev/shm/y && echo fine', { readOnly: true });

      assert.equal(stdout, 'touch: /x: Read-only file system\nfine\n');
    });

    test('a full look in the middle of starts takes no container for lost', async () => {
      const all = containers() as EngineContainers;
      const configs = Array.from({ length: 24 }, () => aContainer());
      let isStarting = true;
      const looking = (async () => {
        while (isStarting) await all.reconcile();
      })();

      await Promise.all(
        configs.map(async (config) => {
          await all.create(config);
          await all.start(config.id);
        }),
      );
      isStarting = false;
      await looking;

      const states = await Promise.all(configs.map(async ({ id }) => (await all.inspect(id))?.status.state));
      assert.deepEqual(new Set(states), new Set(['running']));
      await Promise.all(configs.map(({ id }) => all.remove(id)));
    });

    test('operations that find their work done succeed', async () => {
      const config = aContainer();
      await containers().create(config);
      await containers().create(config);
      const pid = await containers().start(config.id);

      assert.equal(await containers().start(config.id), pid);
      await Promise.all([containers().stop(config.id, 0), containers().stop(config.id, 0)]);
      await containers().stop(config.id, 0);
      await Promise.all([containers().remove(config.id), containers().remove(config.id)]);
      await containers().remove(config.id);
      assert.equal(await containers().inspect(config.id), undefined);
      await assert.rejects(containers().wait(config.id), (error) => hasCode(error, 'not-found'));
    });

    test('a removed container leaves nothing but its log, and that only when asked', async () => {
      const config = aContainer({ args: ['echo', 'last words'] });
      await containers().create(config);
      await containers().start(config.id);
      await containers().wait(config.id);
      await containers().remove(config.id, { keepLogs: true });

      const lines = (await collectLogs(own.engine, config.id)).map(({ line }) => line);
      await containers().remove(config.id);

      assert.deepEqual(lines, ['last words\n']);
      assert.equal(existsSync(path.join(own.options.dataRoot, 'containers', config.id)), false);
    });
  });
}
