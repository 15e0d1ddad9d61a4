// The options of containers and volumes through the built command line, on a real node.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealCluster } from '../support/real-cluster.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { IDLE } from '../support/services.ts';

const image = 'localhost/opt:1';

/** Says what the container sees, then stays. */
const REPORT = [
  'echo "caps $(grep CapEff /proc/self/status | cut -f2)"',
  'echo "limit $(ulimit -n) score $(cat /proc/self/oom_score_adj)"',
  'echo "sysctl $(cat /proc/sys/net/core/somaxconn)"',
  'echo "host $(grep -E "\\sdb$" /etc/hosts | tr "\\t" " ")"',
  'echo "dns $(grep -E "^(nameserver|search|options)" /etc/resolv.conf | tr "\\n" ",")"',
  'echo "shm $(df -k /dev/shm | tail -1 | tr -s " " | cut -d" " -f2)"',
  'echo "privs $(grep NoNewPrivs /proc/self/status | cut -f2)"',
  'echo "mode $(chmod 700 /tmp 2>&1 && echo changed)"',
  'echo "device $(ls /dev/hole 2>&1)"',
  'echo "data $(cat /data/note 2>&1)"',
  'echo "image $(ls /image/etc 2>&1 | tr "\\n" ",")"',
  'echo "env $FROM_FILE"',
  'echo reported',
  IDLE,
].join('; ');

describe('options of a service', { skip: whyNoRealNode() ?? false }, () => {
  let node: RealNode;
  let directory: string;
  const succeed = async (...args: readonly string[]) => (await node.succeed(...args)).stdout;
  /** What the newest task of a service has reported. */
  const reported = async (service: string, wanted: RegExp): Promise<string> =>
    eventually(async () => {
      const { stdout } = await node.cli('service', 'logs', '--raw', service);
      const last = stdout.split('reported\n').at(-2) ?? '';
      assert.match(last, wanted);
      return last;
    }, 30_000);

  before(async () => {
    directory = await mkdtemp(path.join(os.tmpdir(), 'opt-'));
    node = await RealNode.start();
    await node.init();
    await node.importImage((await buildDemoImage({ name: image })).archive);
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  test('flags of create reach the container, and an update adds and removes them', async () => {
    const profile = path.join(directory, 'profile.json');
    const rule = { names: ['chmod', 'fchmodat', 'fchmodat2'], action: 'SCMP_ACT_ERRNO' };
    await writeFile(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] }, null, 2));
    await writeFile(path.join(directory, 'env'), 'FROM_FILE=yes\n');
    await succeed('volume', 'create', '--label', 'tier=db', 'data');
    const mountpoint = (await succeed('volume', 'inspect', '-f', '{{.Mountpoint}}', 'data')).trim();
    await writeFile(path.join(mountpoint, 'note'), 'kept');

    await succeed(
      ...['service', 'create', '--name', 'web', '--no-resolve-image'],
      ...['--update-monitor', '100ms', '--cap-add', 'NET_ADMIN'],
      ...['--cap-drop', 'MKNOD', '--ulimit', 'nofile=111:222', '--oom-score-adj', '55'],
      ...['--sysctl', 'net.core.somaxconn=77', '--host', 'db:10.1.2.3', '--dns', '10.9.9.9'],
      ...['--dns-search', 'example.com', '--dns-option', 'ndots:3', '--shm-size', '1m'],
      ...['--security-opt', 'no-new-privileges', '--security-opt', `seccomp=${profile}`],
      ...['--device', '/dev/null:/dev/hole:r', '--mount', 'type=volume,source=data,target=/data,readonly'],
      ...['--mount', `type=image,source=${image},target=/image`, '--tmpfs', '/run:size=1m,mode=700'],
      ...['--annotation', 'a.b=c', '--env-file', path.join(directory, 'env'), '--group', '44'],
      ...['--cpu-shares', '512', '--container-label', 'x=y', image, 'sh', '-c', REPORT],
    );
    const first = await reported('web', /^env yes$/m);

    assert.match(first, /^caps 00000000a00435fb$/m);
    assert.match(first, /^limit 111 score 55\nsysctl 77\nhost 10\.1\.2\.3 db$/m);
    assert.match(
      first,
      /^dns .*search example\.com,options ndots:3,nameserver|^dns nameserver 10\.9\.9\.9,/m,
    );
    assert.match(first, /^shm 1024\nprivs 1\nmode chmod: .*not permitted\ndevice \/dev\/hole\ndata kept$/m);
    assert.match(first, /^image group,passwd,\nenv yes$/m);

    await succeed(
      ...['service', 'update', '--cap-add', 'MKNOD', '--cap-drop', 'NET_ADMIN', '--ulimit-rm', 'nofile'],
      ...['--sysctl-rm', 'net.core.somaxconn', '--host-rm', 'db', '--host-add', 'db:10.4.5.6'],
      ...['--dns-rm', '10.9.9.9', '--dns-add', '10.8.8.8', '--dns-search-rm', 'example.com'],
      ...[
        '--security-opt-rm',
        'seccomp',
        '--security-opt-rm',
        'no-new-privileges',
        '--device-rm',
        '/dev/hole',
      ],
      ...['--mount-rm', '/data', '--mount-rm', '/image', '--tmpfs-rm', '/run', '--oom-score-adj', '0'],
      ...['--container-label-rm', 'x', '--shm-size', '0', 'web'],
    );
    const second = await reported('web', /^host 10\.4\.5\.6 db$/m);

    assert.match(second, /^caps 00000000a80425fb$/m);
    assert.match(second, /^limit \d{5,} score [01]$/m);
    assert.match(second, /^dns nameserver 10\.8\.8\.8,options ndots:3,$/m);
    assert.match(second, /^shm 65536\nprivs 0\nmode changed\ndevice .*No such file.*\ndata .*No such file/m);

    const [inspected] = JSON.parse(await succeed('service', 'inspect', 'web'));
    const { ContainerSpec, Resources } = inspected.Spec.TaskTemplate;
    assert.deepEqual(ContainerSpec.Hosts, ['10.4.5.6 db']);
    assert.deepEqual(ContainerSpec.DNSConfig, { Nameservers: ['10.8.8.8'], Options: ['ndots:3'] });
    assert.deepEqual(
      [ContainerSpec.CapabilityAdd, ContainerSpec.CapabilityDrop],
      [['CAP_MKNOD'], ['CAP_NET_ADMIN']],
    );
    assert.deepEqual(ContainerSpec.Annotations, { 'a.b': 'c' });
    assert.equal(Resources.Limits.CpuShares, 512);
    assert.match(await succeed('service', 'inspect', '--pretty', 'web'), / CapabilityAdd:\t\tCAP_MKNOD\n/);
    await succeed('service', 'rm', 'web');
    await node.untilEmpty();
  });

  test('a task that asks for what its node lacks is rejected with the option and the node', async () => {
    if (existsSync('/sys/kernel/security/apparmor')) return;
    const asked = ['--security-opt', 'apparmor=web', '--detach', '--no-resolve-image'];
    await succeed('service', 'create', '--name', 'shy', ...asked, image, 'sh', '-c', IDLE);

    await eventually(async () => {
      const text = await succeed('service', 'ps', '--no-trunc', 'shy');
      assert.match(text, /Rejected .*security-opt apparmor=web: node \S+ has no AppArmor in its kernel/);
      return true;
    }, 30_000);
    await succeed('service', 'rm', 'shy');
    await node.untilEmpty();
  });

  test('volumes of the node are made, listed, kept while in use, and pruned', async () => {
    const anonymous = (await succeed('volume', 'create')).trim();
    const fast = ['--opt', 'type=tmpfs', '--opt', 'device=tmpfs', '--opt', 'o=size=1m'];
    assert.equal(await succeed('volume', 'create', ...fast, 'fast'), 'fast\n');
    const mount = 'type=volume,source=fast,target=/fast';
    await succeed(
      'service',
      'create',
      '--name',
      'user',
      '--no-resolve-image',
      '--mount',
      mount,
      image,
      'sh',
      '-c',
      IDLE,
    );

    assert.match(await succeed('volume', 'ls'), /^DRIVER +VOLUME NAME\n(?:local +\w+\n)*local +fast\n/);
    assert.equal(await succeed('volume', 'ls', '-q', '-f', 'dangling=false'), 'fast\n');
    const refused = await node.cli('volume', 'rm', 'fast');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /remove fast: volume is in use by container \w+/);
    assert.equal(await succeed('volume', 'prune', '-f'), `Deleted Volumes:\n${anonymous}\n\n`);
    const [inspected] = JSON.parse(await succeed('volume', 'inspect', 'fast'));
    assert.deepEqual(inspected.Options, { device: 'tmpfs', o: 'size=1m', type: 'tmpfs' });
    assert.equal(inspected.UsedBy.length, 1);
    await succeed('service', 'rm', 'user');
    await node.untilEmpty();

    assert.match(await succeed('volume', 'prune', '-f', '--all'), /fast/);
    assert.equal(await succeed('volume', 'ls', '-q'), '');
    assert.equal(await succeed('volume', 'rm', '-f', 'fast'), 'fast\n');
    const unknown = await node.cli('volume', 'rm', 'fast');
    assert.match(unknown.stderr, /get fast: no such volume/);
    const odd = await node.cli('volume', 'create', '-d', 'rexray', 'odd');
    assert.match(odd.stderr, /volume-driver: "rexray" is not supported: must be "local"/);
  });
});

describe('name servers of a service', { skip: whyNoRealNode() ?? false }, () => {
  test('the names of its network stay, others are asked for where it says, after a killed daemon too', async () => {
    await using cluster = await RealCluster.start('optd', 1);
    const [host = ''] = cluster.lan.hosts;
    await cluster.init();
    const node = cluster.node(0);
    await node.importImage((await buildDemoImage({ name: image })).archive);
    const program = path.join(import.meta.dirname, '../network/dns-upstream.ts');
    const upstream = spawn('ip', ['netns', 'exec', host, process.execPath, program]);
    try {
      await once(upstream.stdout, 'data');
      const create = async (name: string, flags: readonly string[]) => {
        const script = 'while :; do nslookup far.example; nslookup named; sleep 1; done';
        const own = [
          '--name',
          name,
          '--network',
          'net',
          '--no-resolve-image',
          '--update-monitor',
          '100ms',
          '--stop-grace-period',
          '1s',
        ];
        await node.succeed('service', 'create', ...own, ...flags, image, 'sh', '-c', script);
      };
      await node.cli('network', 'create', '--driver', 'overlay', 'net');
      await create('named', ['--dns', '127.0.0.1']);
      const resolves = () =>
        eventually(async () => {
          const { stdout } = await node.cli('service', 'logs', '--raw', '--tail', '12', 'named');
          assert.match(stdout, /203\.0\.113\.7/);
          assert.match(stdout, /Address.*: 10\.0\.\d+\.\d+/);
          return true;
        }, 30_000);
      await resolves();
      await node.killDaemon();
      await node.startDaemon();
      await resolves();
      await node.cli('service', 'rm', 'named');
      await node.untilEmpty();
    } finally {
      upstream.kill();
    }
  });
});
