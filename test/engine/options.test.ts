// The options of containers, seen from inside them, on both runtimes.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ContainerConfig } from '../../agent/engine/engine.ts';
import { inspectMachine, removeCgroup } from '../../agent/engine/machine.ts';
import { findExecutable } from '../../agent/engine/runtime/runtime.ts';
import { hasCode } from '../../core/errors.ts';
import {
  type Device,
  emptyDevice,
  emptyMount,
  emptyResourceLimits,
  emptySecurityOptions,
} from '../../core/generated/objects.ts';
import {
  aContainer,
  hasCrun,
  importDemoImage,
  missingForEngine,
  openTestEngine,
  runToEnd,
  type TestEngine,
} from '../support/engine.ts';
import { eventually } from '../support/eventually.ts';

const device = (pathOnHost: string, change: Partial<Device> = {}): Device => ({
  ...emptyDevice,
  pathOnHost,
  pathInContainer: pathOnHost,
  permissions: 'rwm',
  ...change,
});

for (const runtime of ['runc', 'crun'] as const) {
  const skip = missingForEngine || (runtime === 'crun' && !hasCrun ? 'needs crun' : false);
  describe(`options of containers on ${runtime}`, { skip }, () => {
    let own: TestEngine;
    /** What a script says inside a container. */
    const inside = async (script: string, overrides: Partial<ContainerConfig> = {}): Promise<string> => {
      const { stdout, stderr } = await runToEnd(own.engine, { args: ['sh', '-c', script], ...overrides });
      return `${stdout}${stderr}`;
    };
    const refused = (overrides: Partial<ContainerConfig>, message: RegExp) =>
      assert.rejects(own.engine.containers.create(aContainer(overrides)), { message });

    before(async () => {
      own = await openTestEngine({ runtime });
      await importDemoImage(own.engine);
    });
    after(async () => {
      await own?.[Symbol.asyncDispose]();
    });

    test('capabilities are added, dropped, all of them too', async () => {
      const effective = async (capabilitiesAdded: string[], capabilitiesDropped: string[]) => {
        const overrides = { capabilitiesAdded, capabilitiesDropped };
        const text = await inside('grep CapEff /proc/self/status', overrides);
        return BigInt(`0x${text.split('\t')[1]?.trim()}`);
      };
      const usual = 0xa80425fbn;

      assert.equal(await effective([], []), usual);
      assert.equal(await effective(['CAP_NET_ADMIN'], []), usual | (1n << 12n));
      assert.equal(await effective([], ['CAP_CHOWN']), usual & ~1n);
      assert.equal(await effective([], ['ALL']), 0n);
      assert.equal(await effective(['CAP_CHOWN'], ['ALL']), 1n);
      const all = await effective(['ALL'], ['CAP_SYS_ADMIN']);
      assert.equal(all & (1n << 21n), 0n);
      assert.equal(all & (1n << 12n), 1n << 12n);
    });

    test('what a capability allows is not forbidden by seccomp', async () => {
      const mount = 'mount -t tmpfs x /tmp && echo mounted';

      assert.doesNotMatch(await inside(mount), /mounted/);
      assert.match(await inside(mount, { capabilitiesAdded: ['CAP_SYS_ADMIN'] }), /mounted/);
      assert.match(
        await inside('grep Seccomp: /proc/self/status', { capabilitiesAdded: ['CAP_SYS_ADMIN'] }),
        /\t2/,
      );
    });

    test('seccomp takes a profile of Docker, or nothing', async () => {
      const status = 'grep Seccomp: /proc/self/status';
      const profile = JSON.stringify({
        defaultAction: 'SCMP_ACT_ALLOW',
        archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }],
        syscalls: [
          { names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 13 },
          { names: ['chmod', 'fchmodat'], action: 'SCMP_ACT_ERRNO', excludes: { caps: ['CAP_CHOWN'] } },
        ],
      });
      const own = { security: { ...emptySecurityOptions, seccomp: profile } };

      assert.match(
        await inside(status, { security: { ...emptySecurityOptions, seccomp: 'unconfined' } }),
        /\t0/,
      );
      assert.match(
        await inside(`${status}; mkdir /x; chmod 700 /etc && echo changed`, own),
        /\t2\n.*Permission denied|changed/s,
      );
      assert.match(await inside('chmod 700 /etc && echo changed', own), /changed/);
      const bare = { ...own, capabilitiesDropped: ['CAP_CHOWN'] };
      assert.match(await inside('chmod 700 /etc && echo changed', bare), /not permitted/);
    });

    test('a process may be kept from gaining privileges', async () => {
      const security = { ...emptySecurityOptions, noNewPrivileges: true };

      assert.match(await inside('grep NoNewPrivs /proc/self/status', { security }), /\t1/);
    });

    test('the paths of the system are open when asked for', async () => {
      const security = { ...emptySecurityOptions, systemPathsUnconfined: true };
      const script = 'grep -c " /proc/" /proc/mounts; true';

      assert.notEqual(await inside(script), '0\n');
      assert.equal(await inside(script, { security }), '0\n');
    });

    test('AppArmor and SELinux are refused where the kernel has none of it', async (t) => {
      if (existsSync('/sys/kernel/security/apparmor') || existsSync('/sys/fs/selinux')) {
        t.skip('the kernel has them');
        return;
      }
      const node = os.hostname();
      const label = { disabled: false, user: '', role: '', type: 'x_t', level: '' };

      await refused(
        { security: { ...emptySecurityOptions, appArmor: 'web' } },
        new RegExp(`^security-opt apparmor=web: node ${node} has no AppArmor in its kernel$`),
      );
      await refused(
        { security: { ...emptySecurityOptions, seLinux: label } },
        new RegExp(`^security-opt label: node ${node} has no SELinux in its kernel$`),
      );
      const off = { ...emptySecurityOptions, appArmor: 'unconfined', seLinux: { ...label, disabled: true } };
      assert.equal(await inside('echo runs', { security: off }), 'runs\n');
    });

    test('a privileged container has all capabilities, devices and a writable /sys', async () => {
      const script =
        'grep -E "Cap(Eff|Bnd)|Seccomp:" /proc/self/status; grep " /sys " /proc/mounts; test -c /dev/kmsg && echo device; mount -t tmpfs x /tmp && echo mounted; grep -c " /proc/" /proc/mounts; true';
      const bounding = /CapBnd:\s+(\w+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];

      const text = await inside(script, { privileged: true });

      assert.match(
        text,
        new RegExp(`CapEff:\t${bounding}\nCapBnd:\t${bounding}\nSeccomp:\t0\nsysfs /sys sysfs rw`),
      );
      assert.match(text, /\ndevice\nmounted\n0\n/);
    });

    test('a device is there and may be opened as far as was said', async () => {
      // The memory device that a container never has by itself.
      const kmsg = device('/dev/kmsg', { pathInContainer: '/dev/log-of-kernel', permissions: 'r' });
      const open = 'head -c 0 /dev/log-of-kernel && echo read; : > /dev/log-of-kernel && echo written';

      const text = await inside(open, { devices: [kmsg], capabilitiesAdded: ['CAP_SYSLOG'] });

      assert.match(text, /^read\n/);
      assert.match(text, /not permitted/);
      assert.doesNotMatch(text, /written/);
      const made = 'mknod /tmp/k c 1 11 && head -c 0 /tmp/k && echo read';
      assert.match(await inside(made), /not permitted/);
      assert.equal(
        await inside(made, { deviceCgroupRules: ['c 1:11 r'], capabilitiesAdded: ['CAP_SYSLOG'] }),
        'read\n',
      );
      await refused({ devices: [device('/dev/nope')] }, /^device: \/dev\/nope of node \S+ does not exist$/);
      await refused(
        { devices: [device('/etc/passwd')] },
        /^device: \/etc\/passwd of node \S+ is not a device$/,
      );
    });

    test('namespaces of the host are shared when asked for', async () => {
      const link = (name: string) => `readlink /proc/self/ns/${name}`;
      const ofHost = async (name: string, overrides: Partial<ContainerConfig>) => {
        const [shared, apart] = [await inside(link(name), overrides), await inside(link(name))];
        assert.notEqual(shared, apart, name);
        return shared;
      };

      assert.match(await ofHost('pid', { pidMode: 'host' }), /^pid:/);
      assert.match(await ofHost('ipc', { ipcMode: 'host' }), /^ipc:/);
      assert.match(await ofHost('uts', { utsMode: 'host' }), /^uts:/);
      assert.equal(await inside(`test -d /proc/${process.pid} && echo sees`, { pidMode: 'host' }), 'sees\n');
      assert.equal(
        await inside('hostname; echo $HOSTNAME', { utsMode: 'host' }),
        `${os.hostname()}\n`.repeat(2),
      );
      assert.match(await inside('grep " /dev/shm " /proc/mounts || echo none', { ipcMode: 'none' }), /none/);
      const { cgroupVersion } = await own.engine.describe();
      const other = cgroupVersion === '2' ? 'host' : 'private';
      await ofHost('cgroup', { cgroupnsMode: other });
    });

    test('what a container of the PID namespace of the host has started ends with it', async () => {
      const seconds = `${1e6 + process.pid}`;
      const args = ['sh', '-c', `sleep ${seconds} & exec sleep 1000`];
      const config = aContainer({ pidMode: 'host', args });
      const isThere = () => execFileSync('ps', ['-eo', 'args']).includes(`sleep ${seconds}\n`);
      await own.engine.containers.create(config);
      await own.engine.containers.start(config.id);
      await eventually(async () => isThere());

      await own.engine.containers.stop(config.id, 0);

      await eventually(async () => !isThere());
      await own.engine.containers.remove(config.id);
    });

    test('a container in the network of the host changes nothing of it', async () => {
      const file = '/proc/sys/net/ipv4/ip_unprivileged_port_start';
      const before = readFileSync(file, 'utf8');
      const network = { namespacePath: '/proc/self/ns/net', resolvConf: '', address: '' };

      const text = await inside(`cat ${file}; cat /proc/net/dev | wc -l`, { network });

      assert.equal(text.split('\n')[0], before.trim());
      assert.equal(readFileSync(file, 'utf8'), before);
    });

    test('limits of the process, kernel parameters and the score for the OOM killer are set', async () => {
      const overrides = {
        ulimits: [
          { name: 'nofile', soft: 100, hard: 200 },
          { name: 'core', soft: -1, hard: -1 },
          { name: 'nproc', soft: 50, hard: 60 },
        ],
        sysctls: { 'net.core.somaxconn': '321', 'kernel.msgmax': '4242' },
        oomScoreAdj: 123,
      };
      const script =
        'ulimit -Sn; ulimit -Hn; ulimit -c; grep "Max processes" /proc/self/limits; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj';

      const lines = (await inside(script, overrides)).split('\n');

      assert.deepEqual(lines.slice(0, 3), ['100', '200', 'unlimited']);
      assert.match(lines[3] ?? '', /50 +60 /);
      assert.deepEqual(lines.slice(4), ['321', '4242', '0', '123', '']);
    });

    test('a limit that the daemon cannot raise is refused', async () => {
      const { hasSysResource, hardLimits } = inspectMachine();
      const most = hardLimits['nofile'];
      const ulimits = [{ name: 'nofile', soft: 10, hard: (most ?? 0) + 1 }];

      if (hasSysResource || most === undefined)
        assert.equal(await inside('echo runs', { ulimits }), 'runs\n');
      else
        await refused(
          { ulimits },
          new RegExp(`^ulimit nofile=${most + 1}: node \\S+ cannot raise the limit above ${most}$`),
        );
    });

    test('a score below 0 is refused where the daemon cannot set it', async () => {
      const script = 'cat /proc/self/oom_score_adj';

      if (inspectMachine().hasSysResource) assert.equal(await inside(script, { oomScoreAdj: -5 }), '-5\n');
      else
        await refused(
          { oomScoreAdj: -5 },
          /^oom-score-adj -5: node \S+ cannot shield a container from the OOM killer$/,
        );
    });

    test('a command beside it has the same limits', async () => {
      const config = aContainer({ ulimits: [{ name: 'core', soft: -1, hard: -1 }] });
      await own.engine.containers.create(config);
      await own.engine.containers.start(config.id);

      const { output } = await own.engine.containers.exec(config.id, {
        command: ['sh', '-c', 'ulimit -c'],
        timeoutMs: 10_000,
      });

      assert.equal(output, 'unlimited\n');
      await own.engine.containers.remove(config.id);
    });

    test('weights, processors and swap are set in a cgroup of its own parent', async () => {
      const { cgroupVersion } = await own.engine.describe();
      const parent = `/opt-parent-${process.pid}-${runtime}`;
      const config = aContainer({
        cgroupParent: parent,
        limits: {
          ...emptyResourceLimits,
          memoryBytes: 32 * 2 ** 20,
          ...(existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes') && { swapBytes: 0 }),
          cpusetCpus: '0',
          cpusetMems: '0',
          cpuShares: 512,
          ...(cgroupVersion === '1' && { memorySwappiness: 7 }),
        },
      });
      await own.engine.containers.create(config);
      await own.engine.containers.start(config.id);
      const read = (controller: string, file: string) =>
        readFileSync(path.join('/sys/fs/cgroup', controller, parent, config.id, file), 'utf8').trim();

      if (cgroupVersion === '2') {
        assert.equal(read('', 'cpuset.cpus'), '0');
        assert.equal(read('', 'memory.max'), String(32 * 2 ** 20));
      } else {
        assert.equal(read('cpu', 'cpu.shares'), '512');
        assert.deepEqual([read('cpuset', 'cpuset.cpus'), read('cpuset', 'cpuset.mems')], ['0', '0']);
        assert.equal(read('memory', 'memory.swappiness'), '7');
        if (existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes'))
          assert.equal(read('memory', 'memory.memsw.limit_in_bytes'), String(32 * 2 ** 20));
      }
      const command = { command: ['sleep', '100'], timeoutMs: 200 };
      assert.equal((await own.engine.containers.exec(config.id, command)).hasTimedOut, true);
      await own.engine.containers.stop(config.id, 0);
      await own.engine.containers.remove(config.id);
      removeCgroup(inspectMachine(), parent);
    });

    test('the size of /dev/shm, names for /etc/hosts and annotations are as asked', async () => {
      const overrides = {
        shmSizeBytes: 2 ** 20,
        hosts: ['10.9.8.7 db', '2001:db8::1 six'],
        annotations: { 'io.containerd.runc.v2.group': 'stolen', 'a.b': 'c' },
      };

      const text = await inside('df -k /dev/shm | tail -1; grep -E "db|six" /etc/hosts', overrides);

      assert.match(text, /^shm +1024 /);
      assert.match(text, /10\.9\.8\.7\tdb\n2001:db8::1\tsix\n/);
    });

    test('an init is the first process, where the node has one', async () => {
      const hasInit = ['docker-init', 'catatonit', 'tini-static'].some(
        (name) => findExecutable(name) !== undefined,
      );
      if (!hasInit) {
        await refused({ init: true }, /^init: node \S+ has no statically linked init$/);
        return;
      }

      const text = await inside('cat /proc/1/cmdline | tr "\\0" " "; echo; echo pid $$; exit 4', {
        init: true,
      });

      assert.match(text, /^\/sbin\/docker-init -- sh -c /);
      assert.doesNotMatch(text, /pid 1\n/);
      assert.equal((await runToEnd(own.engine, { args: ['sh', '-c', 'exit 4'], init: true })).exitCode, 4);
      assert.doesNotMatch(await inside('cat /proc/1/cmdline', { init: false }), /docker-init/);
    });

    test('the other runtime may be asked for', async () => {
      assert.equal(await inside('echo runs', { runtime: 'runc' }), 'runs\n');
      if (runtime === 'crun') assert.equal(await inside('echo runs', { runtime: 'crun' }), 'runs\n');
      else await refused({ runtime: 'crun' }, /^runtime: node \S+ cannot use crun$/);
    });

    test('a temporary file system has the options it was given', async () => {
      const tmpfs = { ...emptyMount, type: 'tmpfs' as const, target: '/quick' };
      const line = async (change: object) =>
        inside('grep " /quick " /proc/mounts', { mounts: [{ ...tmpfs, ...change }] });

      assert.match(await line({}), /nosuid,nodev,noexec/);
      assert.match(await line({ tmpfsOptions: ['exec', 'uid=1000'] }), /rw,nosuid,nodev,relatime.*uid=1000/);
      assert.match(await line({ readOnly: true }), / ro,/);
    });

    test('a read-only bind is read-only with all that is mounted below it, unless told otherwise', async () => {
      const root = path.join(path.dirname(own.options.dataRoot), `tree-${runtime}`);
      mkdirSync(root);
      writeFileSync(path.join(root, 'note'), 'hello\n');
      const bind = { ...emptyMount, type: 'bind' as const, source: '/dev', target: '/in', readOnly: true };
      const options = async (change: object) => {
        const text = await inside('grep " /in/shm " /proc/mounts || echo none', {
          mounts: [{ ...bind, ...change }],
        });
        return text.split(' ')[3]?.split(',')[0] ?? text;
      };
      const isMounted = readFileSync('/proc/mounts', 'utf8').includes(' /dev/shm ');

      if (isMounted) {
        assert.equal(await options({}), 'ro');
        assert.equal(await options({ bindRecursive: 'readonly' }), 'ro');
        assert.equal(await options({ bindRecursive: 'writable' }), 'rw');
      }
      assert.equal(await options({ bindRecursive: 'disabled' }), 'none\n');
      await refused(
        { mounts: [{ ...bind, source: path.join(root, 'absent') }] },
        /^bind source path does not exist: .*absent$/,
      );
      const made = { ...bind, source: path.join(root, 'made/deep'), readOnly: false, bindCreateSource: true };
      assert.equal(await inside('echo 1 > /in/x; ls /in', { mounts: [made] }), 'x\n');
      assert.ok(existsSync(path.join(root, 'made/deep/x')));
    });

    test('a refusal leaves nothing behind', async () => {
      const { id } = aContainer();
      const mounts = [{ ...emptyMount, target: '/v' }];
      await assert.rejects(
        own.engine.containers.create(aContainer({ id, mounts, devices: [device('/dev/nope')] })),
        (error) => hasCode(error, 'failed-precondition'),
      );

      assert.equal(await own.engine.containers.inspect(id), undefined);
      assert.deepEqual(await own.engine.volumes.list(), []);
    });
  });
}
