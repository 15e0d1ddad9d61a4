// Images and registries from the command line: the real program in its own process, against sockets of this one.

import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { SwarmError } from '../core/errors.ts';
import { emptyService } from '../core/generated/objects.ts';
import { emptyInspectImageResponse } from '../proto/generated/node.ts';
import { CliNode } from './support/cli-node.ts';

const HUB = 'https://index.docker.io/v1/';
const ID = `sha256:${'cd'.repeat(32)}`;
const DIGEST = `sha256:${'ab'.repeat(32)}`;
const base64 = (text: string) => Buffer.from(text).toString('base64');

/** A helper that keeps what it is told in a file, and says what Docker's say. */
const HELPER = `#!/bin/sh
case "$1" in
  get) read -r server; if [ -s "$HELPER_FILE" ] && grep -q "$server" "$HELPER_FILE"; then cat "$HELPER_FILE"
       else echo "credentials not found in native keychain"; exit 1; fi;;
  store) cat > "$HELPER_FILE";;
  erase) rm -f "$HELPER_FILE";;
esac
`;

interface World {
  readonly cli: CliNode;
  readonly config: string;
  readonly environment: Readonly<Record<string, string>>;
  readConfig(): Promise<Record<string, unknown>>;
}

async function aWorld(
  content: object | undefined,
  answers: Parameters<typeof CliNode.start>[0]['node'] = {},
): Promise<World> {
  const cli = await CliNode.start({
    node: {
      checkRegistry: async ({ auth }) => {
        if (auth.password !== 'good' && auth.identityToken !== 'good')
          throw new SwarmError('permission-denied', `login to ${auth.registry} failed: bad password`);
        return {};
      },
      ...answers,
    },
    control: { createService: async () => ({ service: { ...emptyService, id: 's' } }) },
  });
  const directory = path.join(cli.directory, 'docker');
  const config = path.join(directory, 'config.json');
  await mkdir(directory);
  if (content !== undefined) await writeFile(config, JSON.stringify(content));
  const helper = path.join(cli.directory, 'docker-credential-test');
  await writeFile(helper, HELPER);
  await chmod(helper, 0o755);
  const environment = {
    DOCKER_CONFIG: directory,
    HELPER_FILE: path.join(cli.directory, 'kept'),
    PATH: `${cli.directory}:${process.env['PATH']}`,
  };
  return { cli, config, environment, readConfig: async () => JSON.parse(await readFile(config, 'utf8')) };
}

test('login keeps what the registry took, beside all else that the file says, and logout forgets it', async () => {
  const { cli, environment, config, readConfig } = await aWorld({
    detachKeys: 'ctrl-q',
    auths: { other: { auth: 'eA==' } },
  });
  await using _ = cli;
  const run = (...args: string[]) => cli.run(args, { environment, stdin: 'good\n' });

  const hub = await run('login', '-u', 'me', '--password-stdin');
  const own = await run('login', '-u', 'me', '--password-stdin', 'https://localhost:5000/v2/');

  assert.equal(hub.stdout + own.stdout, 'Login Succeeded\nLogin Succeeded\n');
  assert.match(hub.stderr, /stored unencrypted in '.*config\.json'/);
  assert.deepEqual(await readConfig(), {
    detachKeys: 'ctrl-q',
    auths: {
      other: { auth: 'eA==' },
      [HUB]: { auth: base64('me:good') },
      'localhost:5000': { auth: base64('me:good') },
    },
  });
  assert.equal((await stat(config)).mode & 0o077, 0);
  const again = await run('login');
  assert.equal(again.stdout, 'Authenticating with existing credentials...\nLogin Succeeded\n');
  await writeFile(
    config,
    JSON.stringify({ ...(await readConfig()), auths: { [HUB]: { auth: base64('me:old') } } }),
  );
  const changed = await run('login');
  assert.match(changed.stderr, /Login did not succeed, error: login to docker\.io failed: bad password/);
  await run('login', '-u', 'me', '--password-stdin', 'localhost:5000');
  assert.equal((await run('logout')).stdout, `Removing login credentials for ${HUB}\n`);
  assert.equal(
    (await run('logout', 'localhost:5000')).stdout,
    'Removing login credentials for localhost:5000\n',
  );
  assert.deepEqual((await readConfig())['auths'], {});
});

test('login with a wrong password, or without one, keeps nothing', async () => {
  const { cli, environment, config } = await aWorld(undefined);
  await using _ = cli;
  const table: [args: string[], stdin: string, text: RegExp][] = [
    [['-u', 'me', '-p', 'wrong', 'a.example'], '', /login to a\.example failed: bad password/],
    [
      ['-u', 'me', '--password-stdin', 'a.example'],
      '\n',
      /password must not be empty|password: must not be empty/,
    ],
    [['--password-stdin'], 'good', /requires --username to be set/],
    [['-u', 'me', '-p', 'good', '--password-stdin'], 'good', /mutually exclusive/],
    [['-u', 'me', 'a.example'], '', /standard input is no terminal/],
    [['-u', 'me', '-p', 'good', 'no/registry'], '', /must be HOST\[:PORT\]|server/],
  ];
  for (const [args, stdin, text] of table) {
    const { code, stderr } = await cli.run(['login', ...args], { environment, stdin });
    assert.equal(code, 1, args.join(' '));
    assert.match(stderr, text, args.join(' '));
  }
  await assert.rejects(stat(config));
});

test('a credential helper keeps what the file would, and gives it to pulls, pushes and services', async () => {
  const asked: unknown[] = [];
  const progress = async function* (request: { auth?: unknown }) {
    asked.push(request.auth);
    yield { id: '', status: '', currentBytes: 0, totalBytes: 7, digest: DIGEST };
  };
  const { cli, environment, readConfig } = await aWorld(
    { credHelpers: { 'a.example': 'test' } },
    {
      pullImage: progress,
      pushImage: progress,
      resolveImage: async () => ({ digest: DIGEST, platforms: [] }),
    },
  );
  await using _ = cli;
  const run = (...args: string[]) => cli.run(args, { environment });

  assert.equal((await run('image', 'pull', '-q', 'a.example/app')).code, 0);
  const login = await run('login', '-u', 'me', '-p', 'good', 'a.example');
  assert.ok(!login.stderr.includes('unencrypted'), login.stderr);
  assert.deepEqual((await readConfig())['auths'], { 'a.example': {} });
  for (const args of [
    ['pull', 'a.example/app'],
    ['push', 'a.example/app:1'],
    ['pull', 'b.example/app'],
  ])
    assert.equal((await run('image', ...args)).code, 0);
  const auth = { registry: 'a.example', username: 'me', password: 'good', identityToken: '' };
  assert.deepEqual(asked, [undefined, auth, auth, undefined]);

  const create = ['service', 'create', '-d', '--with-registry-auth'];
  assert.equal((await run(...create, 'a.example/app')).code, 0);
  const plain = await run(...create, 'b.example/app');
  assert.match(plain.stderr, /no credentials are known for b\.example: none are sent/);
  assert.equal((await run('service', 'create', '-d', 'a.example/app')).code, 0);
  const created = cli.asked.filter(({ method }) => method === 'createService').map(({ request }) => request);
  assert.deepEqual(
    created.map((request) => (request as { registryAuth?: unknown }).registryAuth),
    [auth, undefined, undefined],
  );
  const resolved = cli.asked.filter(({ method }) => method === 'resolveImage').map(({ request }) => request);
  assert.deepEqual((resolved[0] as { auth?: unknown }).auth, auth);

  assert.equal((await run('logout', 'a.example')).code, 0);
  assert.equal((await run('image', 'pull', '-q', 'a.example/app')).code, 0);
  assert.equal(asked.at(-1), undefined);
});

test('what Docker has written is understood: older keys, identity tokens, one helper for all', async () => {
  const auths = {
    'https://old.example/v1/': { auth: base64('me:a:b') },
    'token.example': { auth: base64('me:'), identitytoken: 'good' },
    'plain.example': { username: 'me', password: 'pw' },
    'broken.example': { auth: base64('no colon') },
  };
  const asked: unknown[] = [];
  const pullImage = async function* (request: { auth?: unknown }) {
    asked.push(request.auth);
    yield { id: '', status: '', currentBytes: 0, totalBytes: 0, digest: DIGEST };
  };
  const { cli, environment, config } = await aWorld({ auths }, { pullImage });
  await using _ = cli;
  const pull = (host: string) => cli.run(['image', 'pull', '-q', `${host}/app`], { environment });

  for (const host of ['old.example', 'token.example', 'plain.example'])
    assert.equal((await pull(host)).code, 0);
  assert.deepEqual(asked, [
    { registry: 'old.example', username: 'me', password: 'a:b', identityToken: '' },
    { registry: 'token.example', username: 'me', password: '', identityToken: 'good' },
    { registry: 'plain.example', username: 'me', password: 'pw', identityToken: '' },
  ]);
  assert.match(
    (await pull('broken.example')).stderr,
    /config\.json.*auths\.broken\.example\.auth is not the base64/s,
  );
  await writeFile(config, JSON.stringify({ credsStore: 'nosuch' }));
  assert.match((await pull('a.example')).stderr, /docker-credential-nosuch cannot be run/);
  await writeFile(config, JSON.stringify({ credsStore: '../../bin/sh' }));
  assert.match((await pull('a.example')).stderr, /must hold names of programs/);
  await writeFile(config, '{');
  assert.match((await pull('a.example')).stderr, /config\.json cannot be read/);
});

test('push says what became of each layer, and pushes every tag when asked', async () => {
  const pushImage = async function* () {
    yield { id: ID, status: 'Layer already exists', currentBytes: 1, totalBytes: 1, digest: '' };
    yield { id: DIGEST, status: 'Mounted from team/base', currentBytes: 1, totalBytes: 1, digest: '' };
    yield { id: '', status: 'pushed', currentBytes: 528, totalBytes: 528, digest: '' };
    yield { id: '', status: 'complete', currentBytes: 0, totalBytes: 0, digest: DIGEST };
  };
  const image = { digest: DIGEST, id: ID, digests: [], createdAtMs: 0, sizeBytes: 1, labels: {} };
  const tags = ['a.example/app:2', 'a.example/app:1', 'a.example/other:3'];
  const { cli, environment } = await aWorld(undefined, {
    pushImage,
    listImages: async () => ({ images: [{ ...image, tags }] }),
  });
  await using _ = cli;

  const one = await cli.run(['image', 'push', 'a.example/app'], { environment });
  const every = await cli.run(['image', 'push', '-q', '-a', 'a.example/app'], { environment });
  const digest = await cli.run(['image', 'push', `a.example/app@${DIGEST}`], { environment });

  assert.equal(
    one.stdout,
    `The push refers to repository [a.example/app]\nUsing default tag: latest\n${'cd'.repeat(6)}: Layer already exists\n${'ab'.repeat(6)}: Mounted from team/base\nlatest: digest: ${DIGEST} size: 528\n`,
  );
  assert.equal(every.stdout, 'a.example/app:1\na.example/app:2\n');
  assert.match(digest.stderr, /a digest cannot be pushed/);
});

test('pull takes every tag when asked', async () => {
  const pulled: string[] = [];
  const pullImage = async function* ({ reference }: { reference: string }) {
    pulled.push(reference);
    yield { id: '', status: 'complete', currentBytes: 0, totalBytes: 0, digest: DIGEST };
  };
  const { cli, environment } = await aWorld(undefined, {
    pullImage,
    listTags: async () => ({ tags: ['1', '2'] }),
  });
  await using _ = cli;

  const every = await cli.run(['image', 'pull', '-a', '-q', 'a.example:5000/app'], { environment });
  const both = await cli.run(['image', 'pull', '-a', 'a.example/app:1'], { environment });
  const plain = await cli.run(['image', 'pull', 'a.example:5000/app'], { environment });

  assert.equal(every.stdout, 'a.example:5000/app:1\na.example:5000/app:2\n');
  assert.match(both.stderr, /tag can't be used with --all-tags/);
  assert.match(plain.stdout, /^Using default tag: latest\nlatest: Pulling from a\.example:5000\/app\n/);
  assert.deepEqual(pulled, ['a.example:5000/app:1', 'a.example:5000/app:2', 'a.example:5000/app:latest']);
});

test("inspect and history show an image in Docker's words", async () => {
  const configuration = {
    created: '2026-01-01T00:00:00Z',
    author: 'me',
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['sh'] },
    rootfs: { type: 'layers', diff_ids: [DIGEST] },
    history: [
      { created: '2026-01-01T00:00:00Z', created_by: `/bin/sh -c #(nop) ADD ${'x'.repeat(50)}` },
      { created: '2026-01-02T00:00:00Z', created_by: 'CMD ["sh"]', empty_layer: true, comment: 'done' },
    ],
  };
  const inspectImage = async ({ reference }: { reference: string }) => {
    if (reference !== 'app') throw new SwarmError('not-found', `No such image: ${reference}`);
    return {
      ...emptyInspectImageResponse,
      summary: { ...emptyInspectImageResponse.summary, id: ID, digest: DIGEST, tags: ['app:latest'] },
      configuration: Buffer.from(JSON.stringify(configuration)),
      layers: [{ digest: DIGEST, sizeBytes: 10, unpackedBytes: 4_200_000 }],
    };
  };
  const { cli, environment } = await aWorld(undefined, { inspectImage });
  await using _ = cli;
  const run = async (...args: string[]) => (await cli.run(['image', ...args], { environment })).stdout;

  const [shape] = JSON.parse(await run('inspect', 'app'));
  assert.deepEqual(
    [shape.Id, shape.RepoTags, shape.Size, shape.Config, shape.RootFS.Layers, shape.Architecture],
    [ID, ['app:latest'], 4_200_000, { Cmd: ['sh'] }, [DIGEST], 'amd64'],
  );
  assert.equal(await run('inspect', '-f', '{{.Os}} {{index .Config.Cmd 0}}', 'app'), 'linux sh\n');
  const missing = await cli.run(['image', 'inspect', 'nosuch'], { environment });
  assert.deepEqual([missing.code, missing.stdout], [1, '[]\n']);
  assert.match(missing.stderr, /No such image: nosuch/);

  const lines = (await run('history', 'app')).split('\n');
  assert.match(lines[0] ?? '', /^IMAGE +CREATED +CREATED BY +SIZE +COMMENT$/);
  assert.match(lines[1] ?? '', /^cdcdcdcdcdcd +.* ago +CMD \["sh"\] +0B +done$/);
  assert.match(lines[2] ?? '', /^<missing> +.* ago +\/bin\/sh -c #\(nop\) ADD x+… +4\.2MB/);
  assert.equal(
    await run('history', '-H=false', '--format', '{{.CreatedAt}} {{.Size}}', 'app'),
    '2026-01-02T00:00:00Z 0\n2026-01-01T00:00:00Z 4200000\n',
  );
  assert.equal(await run('history', '-q', 'app'), 'cdcdcdcdcdcd\n<missing>\n');
});

test('prune asks first, and says what it has removed', async () => {
  const pruneImages = async () => ({ untagged: ['app:1'], deleted: [ID], reclaimedBytes: 1_500_000 });
  const { cli, environment } = await aWorld(undefined, { pruneImages });
  await using _ = cli;
  const run = (args: string[], stdin = '') => cli.run(['image', 'prune', ...args], { environment, stdin });

  const refused = await run([], 'n\n');
  const agreed = await run(
    ['-a', '--filter', 'until=24h', '--filter', 'label=a=b', '--filter', 'label!=keep'],
    'y\n',
  );
  await run(['-f', '--filter', 'dangling=false']);
  const bad = await run(['-f', '--filter', 'until=soon']);

  assert.match(refused.stdout, /^WARNING! This will remove all dangling images\./);
  assert.match(refused.stderr, /image prune has been cancelled/);
  assert.ok(
    agreed.stdout.endsWith(
      `Deleted Images:\nuntagged: app:1\ndeleted: ${ID}\n\nTotal reclaimed space: 1.5MB\n`,
    ),
  );
  assert.match(bad.stderr, /until "soon" must be a time/);
  const [first, second] = cli.asked.map(({ request }) => request as { untilMs: number });
  const { untilMs = 0, ...rest } = first ?? {};
  assert.deepEqual(rest, { all: true, labels: ['a=b'], withoutLabels: ['keep'] });
  assert.ok(Math.abs(Date.now() - 86_400_000 - untilMs) < 60_000);
  assert.deepEqual(second, { all: true, untilMs: 0, labels: [], withoutLabels: [] });
});

test('import makes an image of files when it gets a name, and reads an archive of images when not', async () => {
  const bytes: string[] = [];
  const { cli, environment } = await aWorld(undefined, {
    importImages: async (requests) => {
      for await (const { reference, data } of requests) bytes.push(`load ${reference}${Buffer.from(data)}`);
      return { names: ['app:1'] };
    },
    createImage: async (requests) => {
      for await (const { reference, changes, message, data } of requests)
        bytes.push(`make ${reference} ${changes} ${message} ${Buffer.from(data)}`);
      return { id: ID };
    },
    tagImage: async () => ({}),
  });
  await using _ = cli;
  const run = (...args: string[]) => cli.run(['image', ...args], { environment, stdin: 'tar' });

  assert.equal((await run('import', '-')).stdout, 'Loaded image: app:1\n');
  assert.equal((await run('load')).stdout, 'Loaded image: app:1\n');
  assert.equal((await run('import', '-c', 'CMD sh', '-m', 'mine', '-', 'root:1')).stdout, `${ID}\n`);
  assert.deepEqual(bytes, [
    'load ',
    'load tar',
    'load ',
    'load tar',
    'make root:1 CMD sh mine ',
    'make    tar',
  ]);
  assert.match((await run('import', '-', 'Root')).stderr, /image.*repository name must be lowercase/);
  assert.equal((await run('tag', 'app:1', 'a.example/app:2')).code, 0);
  assert.deepEqual(cli.asked.at(-1)?.request, { source: 'app:1', target: 'a.example/app:2' });
});
