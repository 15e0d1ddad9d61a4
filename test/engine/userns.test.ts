// Containers with users of their own, seen from inside and from the machine, on both runtimes.

import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { ContainerConfig } from '../../agent/engine/engine.ts';
import { openEngine } from '../../agent/engine/open.ts';
import { createNamespace, removeNamespace } from '../../agent/linux/namespace.ts';
import { NetlinkSocket, netlinkProtocols } from '../../agent/linux/netlink-socket.ts';
import { setLinkUp } from '../../agent/linux/rtnetlink.ts';
import { emptyDevice, emptyMount, emptyResourceLimits } from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import {
  aContainer,
  endEngine,
  engineOptions,
  importDemoImage,
  onEachRuntime,
  oneChunk,
  runToEnd,
  type TestEngine,
} from '../support/engine.ts';
import { killHard, spawnEngine } from '../support/engine-process.ts';
import { eventually } from '../support/eventually.ts';

const POOL_FIRST_ID = 2_000_224_256;

const ownUsers = (overrides: Partial<ContainerConfig> = {}) =>
  aContainer({ usernsMode: 'private', ...overrides });

const bind = (source: string, target: string) => ({ ...emptyMount, type: 'bind' as const, source, target });

const volume = (source: string, target: string) => ({
  ...emptyMount,
  type: 'volume' as const,
  source,
  target,
});

/** Mounts of this machine that belong to an engine. */
function mountsOf({ options }: TestEngine): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((place) => place.startsWith(`${options.runDir}/`) || place.startsWith(`${options.dataRoot}/`))
    .sort();
}

onEachRuntime('containers with users of their own', (own, runtime) => {
  /** What a script says inside such a container. */
  const inside = async (script: string, overrides: Partial<ContainerConfig> = {}): Promise<string> => {
    const args = ['sh', '-c', script];
    const { stdout, stderr } = await runToEnd(own().engine, { usernsMode: 'private', args, ...overrides });
    return `${stdout}${stderr}`;
  };
  const running = async (overrides: Partial<ContainerConfig> = {}) => {
    const config = ownUsers(overrides);
    const { containers } = own().engine;
    await containers.create(config);
    const pid = await containers.start(config.id);
    return { id: config.id, pid };
  };

  test('root inside is nobody on the machine, with ids that no other container has', async () => {
    const [one, other] = [await running(), await running()];

    const mapOf = (pid: number, kind: string) =>
      readFileSync(`/proc/${pid}/${kind}_map`, 'utf8').trim().split(/\s+/).map(Number);
    const first = mapOf(one.pid, 'uid')[1] as number;
    assert.deepEqual(mapOf(one.pid, 'uid'), [0, first, 65_536]);
    assert.deepEqual(mapOf(one.pid, 'gid'), [0, first, 65_536]);
    assert.ok(first >= POOL_FIRST_ID);
    assert.equal(statSync(`/proc/${one.pid}`).uid, first);
    assert.equal(Math.abs((mapOf(other.pid, 'uid')[1] as number) - first), 65_536);
    const { exitCode, output } = await own().engine.containers.exec(one.id, {
      command: ['id', '-u'],
      timeoutMs: 10_000,
    });
    assert.deepEqual([exitCode, output], [0, '0\n']);
    await inside('id', { user: 'web' });
    // Runtimes give containers their standard streams.
    assert.equal(statSync('/dev/null').uid, 0);
    for (const { id } of [one, other]) await own().engine.containers.remove(id);
    assert.deepEqual(readdirSync(path.join(own().options.runDir, 'users')), []);
  });

  test('the files of the image have the owners that the image gives them, and can be changed', async () => {
    const script = `stat -c %u:%g / /bin/busybox /home/web /etc/passwd /etc/hosts
      echo more >>/etc/passwd && echo new >/new && chown web /new && echo 10.1.1.1 x >>/etc/hosts
      stat -c %u /etc/passwd /new; tail -n 1 /etc/passwd; rm /bin/vi && echo removed`;

    assert.equal(await inside(script), '0:0\n0:0\n1000:1000\n0:0\n0:0\n0\n1000\nmore\nremoved\n');
    // The image is as it was.
    assert.equal(
      await inside('stat -c %u:%g /etc/passwd; tail -n 1 /etc/passwd; ls /bin/vi', { usernsMode: '' }),
      '0:0\nweb:x:1000:1000::/home/web:/bin/sh\n/bin/vi\n',
    );
  });

  test('images of several layers, users of the image and programs with their owner’s rights work', async () => {
    const layers = [{ 'etc/one': '1' }, { 'etc/two': '2' }];
    const { archive } = await buildDemoImage({ name: 'layers:1', layers, config: { User: 'web' } });
    await own().engine.images.import(oneChunk(archive));
    const script =
      'id -u; cat /etc/one /etc/two; touch /home/web/own && stat -c %u /home/web/own; echo out >/dev/stdout';

    assert.equal(await inside(script, { image: 'layers:1' }), '1000\n121000\nout\n');
    const suid =
      'cd /tmp; mkdir one other; cp /bin/busybox one; cp /bin/busybox other; chmod 4755 other/busybox';
    const asking = (program: string) => `su web -c "/tmp/${program}/busybox su -c true" </dev/null 2>&1`;
    // busybox refuses to be su without the rights of root.
    assert.match(await inside(`${suid}; ${asking('one')}`), /must be suid/);
    assert.doesNotMatch(await inside(`${suid}; ${asking('other')}; echo $?`), /must be suid/);
  });

  test('files in volumes and directories of the machine belong inside to who owns them outside', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'tsu-'));
    try {
      writeFileSync(path.join(directory, 'data'), 'x');
      chownSync(path.join(directory, 'data'), 1000, 1000);
      const mounts = [
        bind(directory, '/bound'),
        volume('shared', '/vol'),
        bind(path.join(directory, 'data'), '/one'),
      ];

      const text = await inside(
        'stat -c %u /bound/data /one; touch /bound/new /vol/by-own && chown web /vol/by-own',
        { mounts },
      );

      assert.equal(text, '1000\n1000\n');
      assert.equal(statSync(path.join(directory, 'new')).uid, 0);
      const { stdout } = await runToEnd(own().engine, {
        args: ['sh', '-c', 'stat -c %u /vol/by-own; touch /vol/by-machine'],
        mounts: [volume('shared', '/vol')],
      });
      assert.equal(stdout, '1000\n');
      assert.equal(
        await inside('stat -c %u /vol/by-machine && rm /vol/by-machine && ls /vol', { mounts }),
        '0\nby-own\n',
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test('what a container reaches of the machine without such a mount, it reaches as nobody', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'tsu-'));
    chmodSync(directory, 0o755);
    mkdirSync(path.join(directory, 'private'), { mode: 0o700 });
    writeFileSync(path.join(directory, 'private', 'key'), 'secret');
    writeFileSync(path.join(directory, 'public'), 'read');
    try {
      const files = [{ source: directory, target: '/machine' }];

      const text = await inside(
        'stat -c %u /machine/public; cat /machine/public; cat /machine/private/key; id -u',
        { files },
      );

      assert.match(text, /^65534\nread0\n/);
      assert.match(text, /private\/key.*Permission denied/);
      const { pid, id } = await running();
      // Of the machine's own process table nothing but its own is to be had.
      assert.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /NSpid:\s+\d+\s+1\n/);
      await own().engine.containers.remove(id);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test('a file system that cannot be shared that way is refused, with the mount and the way out', async () => {
    const before = mountsOf(own());
    const refused = ownUsers({ mounts: [bind('/sys', '/machine-sys')] });
    const shared = { ...bind(tmpdir(), '/tmp'), bindPropagation: 'rshared' as const };

    await assert.rejects(own().engine.containers.create(refused), {
      code: 'failed-precondition',
      message: /^mount \/machine-sys: \/sys is on, or has in it, a file system/,
      hint: /--userns host/,
    });
    await assert.rejects(own().engine.containers.create(ownUsers({ mounts: [shared] })), {
      message: /^mount \/tmp: bind-propagation=rshared does not go with users/,
    });
    assert.deepEqual(mountsOf(own()), before);
    assert.deepEqual(readdirSync(path.join(own().options.runDir, 'users')), []);
  });

  test('images that are mounted show their owners too', async () => {
    const layers = [{ 'etc/one': '1' }];
    const { archive } = await buildDemoImage({ name: 'mounted:1', layers });
    await own().engine.images.import(oneChunk(archive));
    const image = (source: string, subpath: string, target: string) => ({
      ...emptyMount,
      type: 'image' as const,
      source,
      subpath,
      target,
    });
    const mounts = [image('mounted:1', '', '/several'), image('demo:1', 'home', '/one')];

    assert.equal(
      await inside(
        'stat -c %u /several/etc/one /several/home/web /one/web; touch /several/x 2>/dev/null || echo read-only',
        { mounts },
      ),
      '0\n1000\n1000\nread-only\n',
    );
  });

  test('privileges of the machine do not go with users of their own', async () => {
    const refused = (overrides: Partial<ContainerConfig>, message: RegExp) =>
      assert.rejects(own().engine.containers.create(ownUsers(overrides)), {
        code: 'failed-precondition',
        message,
        hint: /userns host/,
      });

    await refused({ privileged: true }, /^userns: .* privileged/);
    await refused({ pidMode: 'host' }, /^userns: .*pid=host/);
    const network = { namespacePath: '/proc/self/ns/net', resolvConf: '', address: '' };
    await refused({ network }, /^userns: .*network host/);
    await assert.rejects(own().engine.containers.create(ownUsers({ user: '100000' })), {
      code: 'invalid-argument',
      message: /^user 100000: /,
    });
    assert.deepEqual(readdirSync(path.join(own().options.runDir, 'users')), []);
  });

  test('its network belongs to it: low ports, echoes, interfaces and settings', async () => {
    const { engine, options } = own();
    const config = ownUsers({
      capabilitiesAdded: ['CAP_NET_ADMIN'],
      sysctls: { 'net.ipv4.ip_forward': '1' },
      args: [
        'sh',
        '-c',
        'ping -c 1 127.0.0.1 | grep -c "1 packets received"; ls /sys/class/net; cat /proc/sys/net/ipv4/ip_forward; ip link set lo mtu 9000 && echo changed; (nc -l -p 80 >/tmp/heard & sleep 1; echo hello | nc 127.0.0.1 80; sleep 1; cat /tmp/heard)',
      ],
    });
    const { networkNamespace } = await engine.containers.claimUsers(config.id);
    const pin = path.join(options.runDir, 'network-of-test');
    const loopbackUp = () => {
      using routes = new NetlinkSocket(netlinkProtocols.route);
      routes.execute([setLinkUp(1, true)]);
    };
    createNamespace(pin, loopbackUp, networkNamespace);
    try {
      const network = { namespacePath: pin, resolvConf: '', address: '' };

      const { stdout, stderr } = await runToEnd(engine, { ...config, network });

      assert.match(`${stdout}${stderr}`, /^1\nlo\n1\nchanged\n/);
      assert.match(stdout, /hello/);
    } finally {
      removeNamespace(pin);
    }
    assert.deepEqual(readdirSync(path.join(options.runDir, 'users')), []);
  });

  test('limits, shared memory, tmpfs, terminals and the files of secrets are as usual', async () => {
    const file = path.join(own().options.runDir, `secret-${runtime}`);
    writeFileSync(file, 'word', { mode: 0o400 });
    chownSync(file, POOL_FIRST_ID, POOL_FIRST_ID);
    const mounts = [{ ...emptyMount, type: 'tmpfs' as const, target: '/scratch' }];
    const files = [{ source: file, target: '/run/secrets/word' }];
    const script = `touch /dev/shm/x /scratch/x && stat -c %u /dev/shm/x /scratch/x; echo >/dev/null && echo null
      cat /run/secrets/word; echo; cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max`;
    const limits = { ...emptyResourceLimits, memoryBytes: 64 * 2 ** 20, pids: 50 };

    assert.equal(await inside(script, { mounts, files, limits }), '0\n0\nnull\nword\n67108864\n');
    const { stdout } = await runToEnd(own().engine, {
      usernsMode: 'private',
      tty: true,
      args: ['sh', '-c', 'tty; stat -c %u $(tty)'],
    });
    assert.match(stdout, /^\/dev\/(console|pts\/0)\r\n0\r\n$/);
  });

  test('devices are those of the machine, as far as anybody may use them', async () => {
    const device = {
      ...emptyDevice,
      pathOnHost: '/dev/zero',
      pathInContainer: '/dev/endless',
      permissions: 'r',
    };
    const script =
      'head -c 3 /dev/endless | wc -c; chmod 600 /dev/endless /dev/null 2>&1 | grep -c "not permitted"; mknod /own c 1 3 2>&1 | grep -c "not permitted"';

    assert.equal(await inside(script, { devices: [device], capabilitiesAdded: ['ALL'] }), '3\n2\n1\n');
  });

  test('commands, sessions, counters and signals reach it', async () => {
    const { containers } = own().engine;
    const { id } = await running({ user: 'web' });
    const session = await containers.openExec(id, {
      command: ['sh', '-c', 'id -u; touch /root/by-session && stat -c %u /root/by-session'],
      env: [],
      workdir: '',
      user: 'root',
      privileged: false,
      tty: false,
      stdin: false,
    });
    let text = '';
    for await (const { data } of session.output) text += Buffer.from(data).toString();

    assert.equal(text, '0\n0\n');
    assert.equal(await session.exited, 0);
    assert.equal((await containers.exec(id, { command: ['id', '-u'], timeoutMs: 10_000 })).output, '1000\n');
    assert.ok((await containers.stats(id)).memoryBytes > 0);
    assert.equal((await containers.processes(id)).length, 1);
    const beyond = { command: ['id'], env: [], workdir: '', privileged: false, tty: false, stdin: false };
    await assert.rejects(containers.openExec(id, { ...beyond, user: '70000' }), { message: /^user 70000: / });
    await containers.kill(id, 'SIGKILL');
    assert.equal((await containers.wait(id)).exitCode, 137);
    await containers.remove(id);
  });

  test('nothing of them is left: no mount, no namespace, no ids', async () => {
    const before = mountsOf(own());
    const mounts = [bind(path.join(own().options.dataRoot, 'scratch'), '/bound'), volume('kept', '/vol')];
    const { id } = await running({ mounts });

    const during = mountsOf(own()).filter((place) => !before.includes(place));
    // One for each of both mounts and of both namespaces, and the root that containerd has where it is seen.
    assert.ok(during.length <= 6, during.join(' '));
    assert.deepEqual(
      during.filter((place) => place.includes('layer')),
      [],
    );
    // What is bound may lie where users of the machine must not get.
    const folder = statSync(path.join(own().options.runDir, 'mounts', id));
    assert.deepEqual([folder.mode & 0o777, folder.uid >= POOL_FIRST_ID], [0o700, true]);
    await own().engine.containers.remove(id);
    assert.deepEqual(mountsOf(own()), before);
    assert.ok(!existsSync(path.join(own().options.runDir, 'mounts', id)));
    assert.deepEqual(readdirSync(path.join(own().options.runDir, 'users')), []);
  });

  test('a creation that was cut off leaves no ids', async () => {
    const { options } = own();
    const { dataRoot, runDir } = options;
    const cutOff = path.join(dataRoot, 'containers', 'cut-off');
    // As it is when the process is killed between the two steps.
    mkdirSync(cutOff);
    writeFileSync(path.join(cutOff, 'container.jsonl'), '{"views":[],"claimsUsers":true}\n');
    await own().engine.containers.claimUsers('cut-off');
    // Somebody has made a network for this one, and comes back.
    const claimed = await own().engine.containers.claimUsers('claimed');

    await own().reopen();

    assert.deepEqual(readdirSync(path.join(runDir, 'users')), [`claimed@${claimed.firstId}`]);
    assert.deepEqual(await own().engine.containers.claimUsers('claimed'), claimed);
    await own().engine.containers.remove('claimed');
    assert.deepEqual(readdirSync(path.join(runDir, 'users')), []);
  });

  test('after the daemon and containerd were killed they run on, with the ids that they had', async () => {
    const options = engineOptions({ runtime });
    let engine = await openEngine(options);
    try {
      await importDemoImage(engine);
      await engine[Symbol.asyncDispose]();
      const configs = [ownUsers({ mounts: [volume('vol', '/v')] }), ownUsers()];
      const child = await spawnEngine(options, configs);
      await killHard(child);
      engine = await openEngine(options);
      const containerdPid = engine.containerdPid as number;
      process.kill(containerdPid, 'SIGKILL');
      await eventually(() => engine.containerdPid !== undefined && engine.containerdPid !== containerdPid);

      const { id } = configs[0] as ContainerConfig;
      const result = await eventually(async () =>
        engine.containers.exec(id, {
          command: ['sh', '-c', 'touch /v/x /x && stat -c %u /v/x /x'],
          timeoutMs: 10_000,
        }),
      );
      assert.equal(result.output, '0\n0\n');
      const users = path.join(options.runDir, 'users');
      assert.equal(readdirSync(users).length, 2);
      const third = ownUsers();
      await engine.containers.create(third);
      assert.equal(new Set(readdirSync(users).map((name) => name.split('@')[1])).size, 3);
      for (const config of [...configs, third]) await engine.containers.remove(config.id);
      assert.deepEqual(readdirSync(users), []);
      assert.deepEqual(readdirSync(path.join(options.runDir, 'mounts')), []);
    } finally {
      await endEngine(engine, options);
    }
  });
});
