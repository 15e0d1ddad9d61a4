// Secrets and configs in real containers: how they get there, how they change there, and what is left of them.

import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  emptyFileReference,
  emptyMount,
  type FileReference,
  type ServiceSpec,
} from '../../core/generated/objects.ts';
import { buildDemoImage } from '../../deploy/demo-image.ts';
import { eventually } from '../support/eventually.ts';
import { RealNode, whyNoRealNode } from '../support/real-node.ts';
import { createService, IDLE, linesOf, tasksOf, untilRunning } from '../support/services.ts';

const image = 'localhost/bb:1';

const reference = (source: string, change: Partial<FileReference> = {}): FileReference => ({
  ...emptyFileReference,
  sourceId: source,
  target: source,
  mode: 0o444,
  ...change,
});

describe('secrets and configs', { skip: whyNoRealNode() ?? false }, () => {
  let node: RealNode;
  let files = 0;

  before(async () => {
    node = await RealNode.start();
    await node.init();
    await node.importImage((await buildDemoImage({ name: image })).archive);
  });
  after(async () => {
    await node?.[Symbol.asyncDispose]();
  });

  const cli = async (...args: readonly string[]) => (await node.succeed(...args)).stdout.trim();
  /** A file with this content, for the command line. */
  const fileWith = async (content: string | Uint8Array): Promise<string> => {
    const file = path.join(node.directory, `content-${++files}`);
    await writeFile(file, content);
    return file;
  };
  const put = async (kind: 'secret' | 'config', name: string, content: string, ...flags: string[]) =>
    cli(kind, 'create', ...flags, name, await fileWith(content));
  const update = async (kind: 'secret' | 'config', name: string, content: string) =>
    cli(kind, 'update', name, await fileWith(content));
  const remove = async (...names: readonly string[]) => {
    for (const service of names) await node.control.removeService({ service });
    await node.untilEmpty();
  };
  const linesOfOne = async (serviceId: string): Promise<string[]> =>
    [...(await linesOf(node, serviceId)).values()].flat();
  const untilLine = (serviceId: string, line: string): Promise<unknown> =>
    eventually(async () => {
      const lines = await linesOfOne(serviceId);
      if (!lines.includes(line)) throw new Error(`"${line}" is not in ${JSON.stringify(lines.slice(-20))}`);
      return true;
    }, 15_000);
  const taskDirectories = () => readdir(path.join(node.runDir, 'secrets'));
  const mountsBelow = async () =>
    (await readFile('/proc/mounts', 'utf8'))
      .split('\n')
      .filter((line) => line.includes(path.join(node.runDir, 'secrets/')));

  test('a task has its files at their targets, with owner and mode, read-only and in memory', async () => {
    await put('secret', 'plain', 'of plain\n');
    await put('secret', 'owned', 'of owned');
    await put('config', 'conf', 'of conf\n');
    const script = `stat -c '%n %u:%g %a' /run/secrets/plain /somewhere/else /conf /etc/deep/er/conf
      cat /run/secrets/plain /conf; echo "$(cat /somewhere/else)"
      touch /run/secrets/plain 2>&1; echo x 2>/dev/null >/somewhere/else || echo cannot write
      grep ' /conf ' /proc/mounts | cut -d' ' -f1-4
      ${IDLE}`;
    const secrets = [
      reference('plain'),
      reference('owned', { target: '/somewhere/else', uid: 1000, gid: 50, mode: 0o400 }),
    ];
    const configs = [reference('conf'), reference('conf', { target: '/etc/deep/er/conf', mode: 0o755 })];
    const service = await createService(node, 'files', { image, script, container: { secrets, configs } });
    await untilRunning(node, service.id, 1);
    await eventually(async () => (await linesOfOne(service.id)).length >= 10);
    const lines = await linesOfOne(service.id);
    assert.deepEqual(lines.slice(0, 7), [
      '/run/secrets/plain 0:0 444',
      '/somewhere/else 1000:50 400',
      '/conf 0:0 444',
      '/etc/deep/er/conf 0:0 755',
      'of plain',
      'of conf',
      'of owned',
    ]);
    assert.match(lines[7] ?? '', /Read-only file system/);
    assert.equal(lines[8], 'cannot write');
    assert.match(
      lines[9] ?? '',
      /^tsswarm.* \/conf tmpfs ro,nosuid,nodev,noexec|^tmpfs \/conf tmpfs ro,nosuid,nodev,noexec/,
    );
    assert.equal((await taskDirectories()).length, 1);

    const refused = await node.cli('secret', 'rm', 'plain');
    assert.match(
      refused.stderr,
      /secret 'plain' is in use by the following service: files\n.*--secret-rm plain/,
    );
    const shown = JSON.parse(await cli('service', 'inspect', 'files'))[0].Spec.TaskTemplate.ContainerSpec;
    assert.equal(shown.Secrets[1].File.UID, '1000');
    assert.equal(shown.Configs[1].ConfigName, 'conf');

    await remove('files');
    await eventually(async () => (await taskDirectories()).length === 0);
    assert.deepEqual(await mountsBelow(), []);
    assert.equal(await cli('secret', 'rm', 'plain', 'owned'), 'plain\nowned');
    await cli('config', 'rm', 'conf');
  });

  test('a new version is there from one moment to the next, whole, and the process is told', async () => {
    // Content that says of itself whether all of it is there.
    const content = (version: number) => `${`${version} `.repeat(20_000)}end\n`;
    const seen = (version: number) => `${version} `.repeat(20_000).trim();
    await put('config', 'big', content(1));
    const script = `trap 'echo told' HUP
      while :; do
        c=$(cat /etc/big/conf) || echo unreadable
        set -- $c; first=$1; eval last=\\\${$#}
        [ $# = 20001 ] && [ "$last" = end ] || echo "half: $# $last"
        case " $c" in *" $first $first "*) ;; *) echo mixed ;; esac
        [ "$first" = "$before" ] || echo "version $first"; before=$first
      done`;
    const configs = [
      reference('big', { target: '/etc/big/conf', signal: 'SIGHUP' }),
      reference('big', { target: '/pinned', version: 1 }),
    ];
    const service = await createService(node, 'reader', {
      image,
      script,
      container: { configs, stopGracePeriodMs: 100 },
    });
    const [task] = await untilRunning(node, service.id, 1);
    await untilLine(service.id, 'version 1');
    for (let version = 2; version <= 9; version++) {
      await update('config', 'big', content(version));
      await untilLine(service.id, `version ${version}`);
    }
    await eventually(
      async () => (await linesOfOne(service.id)).filter((line) => line === 'told').length >= 8,
    );
    const [shown] = JSON.parse(await cli('task', 'inspect', 'reader.1'));
    const held = (shown.Configs as { Target: string; Version: number }[]).map((file) => [
      file.Target,
      file.Version,
    ]);
    const newest = held[0]?.[1];
    assert.deepEqual(held, [
      ['/etc/big/conf', newest],
      ['/pinned', 1],
    ]);
    assert.ok(Number(newest) > 1);
    assert.equal(await cli('service', 'ps', '--format', '{{.Configs}}', 'reader'), `big@${newest}, big@1`);
    const [big] = JSON.parse(await cli('config', 'inspect', 'big'));
    const holders = (big.Versions as { Version: number; Tasks?: string[] }[]).filter(({ Tasks }) => Tasks);
    assert.deepEqual(
      holders.map(({ Version, Tasks }) => [Version, Tasks]),
      [1, newest].map((version) => [version, [`reader.1.${shown.ID}`]]),
    );
    assert.match(
      await cli('why', shown.ID),
      new RegExp(`big: version ${newest}, the newest[^]*big: version 1, as`),
    );
    const others = (await linesOfOne(service.id)).filter((line) => !/^version \d$|^told$/.test(line));
    assert.deepEqual(others, []);
    assert.equal((await untilRunning(node, service.id, 1))[0]?.id, task?.id, 'it is the same task');
    const pid = (await tasksOf(node, service.id))[0]?.status.container?.pid;
    assert.equal(await readFile(`/proc/${pid}/root/pinned`, 'utf8'), content(1));
    assert.equal((await readFile(`/proc/${pid}/root/etc/big/conf`, 'utf8')).slice(0, 4), seen(9).slice(0, 4));

    const { versions } = await node.control.getConfig({ source: 'big' });
    assert.deepEqual(
      versions.map(({ version, pinnedBy }) => [version, pinnedBy.length]),
      [
        [1, 1],
        [5, 0],
        [6, 0],
        [7, 0],
        [8, 0],
        [9, 0],
      ],
    );
    await remove('reader');
    await eventually(async () => (await taskDirectories()).length === 0);
    await cli('config', 'rm', 'big');
  });

  test('files outlive a killed daemon, which takes up what came meanwhile', async () => {
    await put('secret', 'lasting', 'first');
    const script = `while :; do c=$(cat /run/secrets/lasting); [ "$c" = "$b" ] || echo "$c"; b=$c; sleep 0.1; done`;
    const secrets = [reference('lasting')];
    const service = await createService(node, 'lasting', {
      image,
      script,
      container: { secrets, stopGracePeriodMs: 100 },
    });
    const [task] = await untilRunning(node, service.id, 1);
    await untilLine(service.id, 'first');
    await node.killDaemon();
    const pid = task?.status.container?.pid;
    assert.equal(await readFile(`/proc/${pid}/root/run/secrets/lasting`, 'utf8'), 'first');
    await node.startDaemon();
    await eventually(() => node.control.getCluster({}), 15_000);
    await update('secret', 'lasting', 'second');
    await untilLine(service.id, 'second');
    assert.equal((await untilRunning(node, service.id, 1))[0]?.id, task?.id);
    await update('secret', 'lasting', 'third');
    await untilLine(service.id, 'third');
    await remove('lasting');
    await eventually(async () => (await taskDirectories()).length === 0);
    await cli('secret', 'rm', 'lasting');
  });

  test('templates know the task, in its spec and in its files', async () => {
    await put('secret', 'word', 'swordfish');
    const template = 'user={{.Service.Name}}-{{.Task.Slot}} word={{secret "word"}} env={{env "WHO"}}\n';
    await put('config', 'made', template, '--template-driver', 'golang');
    const container = {
      secrets: [reference('word')],
      configs: [reference('made')],
      env: ['WHO={{.Node.Platform.OS}}/{{index .Service.Labels "tier"}}'],
      hostname: '{{.Service.Name}}-{{.Task.Slot}}',
      mounts: [{ ...emptyMount, type: 'tmpfs' as const, target: '/tmp/{{.Task.Slot}}' }],
    };
    const script = `hostname; cat /made; [ -d /tmp/1 ] && echo mounted; ${IDLE}`;
    const change = (spec: ServiceSpec) => ({ ...spec, labels: { tier: 'front' } });
    const service = await createService(node, 'filled', { image, script, container, change });
    await untilRunning(node, service.id, 1);
    await untilLine(service.id, 'mounted');
    assert.deepEqual(await linesOfOne(service.id), [
      'filled-1',
      'user=filled-1 word=swordfish env=linux/front',
      'mounted',
    ]);
    await remove('filled');

    const bad = await node.cli('service', 'create', '--env', 'A={{.Nope}}', image);
    assert.match(
      bad.stderr,
      /env: A: template "\{\{\.Nope\}\}": can't evaluate field Nope; known are \.Service, \.Node, \.Task/,
    );
    await cli('config', 'update', 'made', await fileWith('{{secret "elsewhere"}}'));
    const failing = await createService(node, 'failing', { image, container });
    await eventually(async () => {
      const [task] = await tasksOf(node, failing.id);
      assert.equal(task?.status.state, 'rejected');
      assert.match(task.status.error, /the service has no secret with the target "elsewhere"/);
      return true;
    });
    await remove('failing');
    await cli('config', 'rm', 'made');
    await cli('secret', 'rm', 'word');
  });

  test('the largest that Swarm allows arrive whole', async () => {
    const [secret, config] = [500 * 1024 - 1, 1000 * 1024 - 1].map((length) => 'x'.repeat(length));
    await put('secret', 'large', secret ?? '');
    await put('config', 'larger', config ?? '');
    const container = { secrets: [reference('large')], configs: [reference('larger')] };
    const script = `wc -c < /run/secrets/large; wc -c < /larger; echo read; ${IDLE}`;
    const service = await createService(node, 'large', { image, script, container });
    await untilLine(service.id, 'read');
    assert.deepEqual(await linesOfOne(service.id), ['511999', '1023999', 'read']);
    await remove('large');
    await cli('secret', 'rm', 'large');
    await cli('config', 'rm', 'larger');
  });

  test('the command line speaks as Docker does', async () => {
    const id = await put('secret', 'shown', 'hunter2', '-l', 'a=b');
    await put('config', 'open', 'to all\n');
    assert.match(
      await cli('secret', 'ls'),
      new RegExp(`^ID +NAME +DRIVER +CREATED +UPDATED\n${id} +shown +(Less than a second|\\d+ seconds?) ago`),
    );
    assert.match(await cli('config', 'ls'), /^ID +NAME +CREATED +UPDATED\n\w{25} +open /);
    assert.equal(await cli('secret', 'ls', '-q', '--filter', 'label=a=b'), id);
    assert.equal(await cli('secret', 'ls', '--format', '{{.Name}} {{.Labels}} {{.Version}}'), 'shown a=b 1');
    const [secret] = JSON.parse(await cli('secret', 'inspect', 'shown'));
    assert.deepEqual(secret.Spec, { Name: 'shown', Labels: { a: 'b' } });
    assert.deepEqual([secret.LatestVersion, secret.Versions.length, secret.Versions[0].Size], [1, 1, 7]);
    const [config] = JSON.parse(await cli('config', 'inspect', 'open'));
    assert.equal(Buffer.from(config.Spec.Data, 'base64').toString(), 'to all\n');
    assert.match(await cli('config', 'inspect', '--pretty', 'open'), /Name:\t\t\topen\n(.*\n)*Data:\nto all/);
    await cli('secret', 'update', '--label-rm', 'a', '--label-add', 'c=d', 'shown');
    assert.equal(
      await cli('secret', 'inspect', '--format', '{{json .Spec.Labels}} {{.LatestVersion}}', 'shown'),
      '{"c":"d"} 1',
    );

    for (const [pattern, ...args] of [
      [/secret shown already exists/, 'secret', 'create', 'shown', await fileWith('x')],
      [/--driver is not supported yet/, 'secret', 'create', '--driver', 'vault', 'v', '-'],
      [/data: a secret must have at least 1/, 'secret', 'create', 'empty', await fileWith('')],
      [
        /data: a secret must have .* it has 512000/,
        'secret',
        'create',
        'big',
        await fileWith(Buffer.alloc(512_000)),
      ],
      [/name: "a b" must have 1 to 64/, 'secret', 'create', 'a b', await fileWith('x')],
      [/secret nope not found/, 'secret', 'inspect', 'nope'],
      [/nothing to update/, 'config', 'update', 'open'],
      [/secret nope not found/, 'service', 'create', '--secret', 'nope', image],
      [/secret shown has no version 7/, 'service', 'create', '--secret', 'source=shown,version=7', image],
      [
        /target "\/x" is that of secret shown as well/,
        'service',
        'create',
        '--secret',
        'source=shown,target=/x',
        '--config',
        'source=open,target=/x',
        image,
      ],
      [
        /unknown key "colour"; known are source, target/,
        'service',
        'create',
        '--secret',
        'source=shown,colour=1',
        image,
      ],
    ] as const) {
      const result = await node.cli(...args);
      assert.match(result.stderr, pattern);
      assert.notEqual(result.code, 0);
    }

    await cli(
      'service',
      'create',
      '-d',
      '--name',
      'flags',
      '--secret',
      'source=shown,target=one,uid=5,mode=0400,signal=HUP',
      '--config',
      'open',
      image,
      'sleep',
      '1000',
    );
    await cli(
      'service',
      'update',
      '-d',
      '--secret-rm',
      'shown',
      '--secret-add',
      'source=shown,version=1',
      '--config-rm',
      'open',
      'flags',
    );
    const spec = (await node.control.getService({ service: 'flags' })).service.spec.task.container;
    assert.deepEqual(
      [spec.secrets.map(({ target, version }) => [target, version]), spec.configs],
      [[['shown', 1]], []],
    );
    await remove('flags');
    assert.equal(await cli('secret', 'rm', 'shown'), 'shown');
    assert.equal(await cli('config', 'rm', 'open'), 'open');
  });
});

test('runc shows new versions as crun does', { skip: whyNoRealNode() ?? false }, async () => {
  await using node = await RealNode.start({ flags: ['--runtime', 'runc'] });
  await node.init();
  await node.importImage((await buildDemoImage({ name: image })).archive);
  const spec = { name: 'conf', labels: {}, templateDriver: '' };
  const { config } = await node.control.createConfig({ spec, data: Buffer.from('first') });
  const configs = [reference('conf', { target: '/etc/conf' })];
  const service = await createService(node, 'reader', { image, container: { configs } });
  const [task] = await untilRunning(node, service.id, 1);
  const file = `/proc/${task?.status.container?.pid}/root/etc/conf`;
  assert.equal(await readFile(file, 'utf8'), 'first');
  const { id, meta } = config;
  await node.control.updateConfig({ id, version: meta.version, spec, data: Buffer.from('second') });
  await eventually(async () => (await readFile(file, 'utf8')) === 'second');
  await node.control.removeService({ service: 'reader' });
  await node.untilEmpty();
});
