// Networks on the command line: the real program in its own process, against the real control service; the allocator's
// part is played.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Network, Service } from '../core/generated/objects.ts';
import { formatPrefix, type Prefix } from '../core/ip-address.ts';
import { aNode, aTask } from './support/builders.ts';
import { CliCluster, type CliResult } from './support/cli-cluster.ts';
import { ControlCli } from './support/control-cli.ts';
import { eventually } from './support/eventually.ts';

async function ok(result: Promise<CliResult>): Promise<string> {
  const { code, stdout, stderr } = await result;
  assert.equal(code, 0, stderr);
  assert.equal(stderr, '');
  return stdout;
}

const createService = (cli: ControlCli, name: string, ...flags: readonly string[]) =>
  ok(cli.run(['service', 'create', '-d', '-q', '--no-resolve-image', '--name', name, ...flags, 'busybox']));

function networkOf(cli: ControlCli, name: string): Network {
  return cli.store.view.byName('network', name) as Network;
}

function serviceOf(cli: ControlCli, name: string): Service {
  return cli.store.view.byName('service', name) as Service;
}

test('create prints the id of a network that has its addresses', async () => {
  await using cli = await ControlCli.start();

  const stdout = await ok(
    cli.run([
      ...['network', 'create', '-d', 'overlay', '--attachable', '--internal', '--label', 'tier=front'],
      ...['--subnet', '10.5.0.0/24,10.6.0.0/24', '--gateway', '10.6.0.9', '--ip-range', '10.5.0.128/25'],
      ...['--aux-address', 'router=10.5.0.2', '-o', 'com.docker.network.driver.mtu=1400', '-o', 'encrypted'],
      ...['-o', 'com.docker.network.driver.overlay.vxlanid_list=5001', '--allow', 'web:db:5432', 'front'],
    ]),
  );

  const { id, spec, vni } = networkOf(cli, 'front');
  assert.equal(stdout, `${id}\n`);
  assert.equal(vni, 5001);
  assert.deepEqual(spec, {
    ...spec,
    labels: { tier: 'front' },
    driver: 'overlay',
    options: {},
    internal: true,
    attachable: true,
    ingress: false,
    encrypted: true,
    ipv6: false,
    mtu: 1400,
    vni: 5001,
    subnets: [
      {
        subnet: '10.5.0.0/24',
        ipRange: '10.5.0.128/25',
        gateway: '',
        auxiliaryAddresses: { router: '10.5.0.2' },
      },
      { subnet: '10.6.0.0/24', ipRange: '', gateway: '10.6.0.9', auxiliaryAddresses: {} },
    ],
    policy: { allow: [{ from: 'web', to: 'db', protocol: 'tcp', port: 5432 }] },
  });
});

test('drivers of the nodes take their options from a config-only network, or from flags', async () => {
  await using cli = await ControlCli.start();

  await ok(
    cli.run(['network', 'create', '--config-only', '-o', 'parent=eth1', '--subnet', '192.168.7.0/24', 'lan']),
  );
  await ok(
    cli.run(['network', 'create', '-d', 'macvlan', '--scope', 'swarm', '--config-from', 'lan', 'office']),
  );
  await ok(
    cli.run(['network', 'create', '-d', 'ipvlan', '-o', 'parent=eth2', '-o', 'ipvlan_mode=l2', 'plain']),
  );

  assert.equal(
    await ok(cli.run(['network', 'ls', '--format', '{{.Name}} {{.Driver}} {{.Scope}}'])),
    'lan null swarm\noffice macvlan swarm\nplain ipvlan swarm\n',
  );
});

test('a network that cannot be is refused by the name of its flag', async () => {
  await using cli = await ControlCli.start();
  cli.allocator.refusals.set('full', 'no subnet of the pools 10.0.0.0/8 is free');
  await ok(cli.run(['network', 'create', '--subnet', '10.5.0.0/16', 'front']));
  const cases: readonly (readonly [number, RegExp, readonly string[]])[] = [
    [125, /"-d, --driver" flag: must be "overlay", "bridge"/, ['-d', 'weave', 'x']],
    [125, /"--scope" flag: scope "local" is not supported yet/, ['--scope', 'local', 'x']],
    [125, /"--ipam-driver" flag: must be "default"/, ['--ipam-driver', 'dhcp', 'x']],
    [125, /"--ipam-opt" flag: the default IPAM driver has no options/, ['--ipam-opt', 'a=b', 'x']],
    [125, /"--ipv4" flag: must be true: every network has IPv4/, ['--ipv4=false', 'x']],
    [125, /"--allow" flag: must be FROM:TO/, ['--allow', 'web', 'x']],
    [125, /"--allow" flag: must be "tcp", "udp" or "sctp"/, ['--allow', 'web:db:53/icmp', 'x']],
    [125, /"--allow" flag: port "70000" must be from 1/, ['--allow', 'web:db:70000', 'x']],
    [125, /"--aux-address" flag: must be NAME=ADDRESS/, ['--aux-address', '10.0.0.1', 'x']],
    [1, /Error: name: "a b" is not valid/, ['a b']],
    [1, /Error: name: "host" is what each node has for itself/, ['host']],
    [1, /Error: subnet: "10.0.0.1\/24" .* 10.0.0.0\/24 is meant/, ['--subnet', '10.0.0.1/24', 'x']],
    [1, /Error: subnet: 10.0.0.0\/24 is given twice/, ['--subnet', '10.0.0.0/24,10.0.0.0/24', 'x']],
    [
      1,
      /Error: gateway: no --subnet has 10.9.0.1/,
      ['--subnet', '10.0.0.0/24', '--gateway', '10.9.0.1', 'x'],
    ],
    [1, /Error: ip-range: no --subnet has 10.9.0.0\/25/, ['--ip-range', '10.9.0.0/25', 'x']],
    [
      1,
      /Error: gateway: 10.0.0.1 and 10.0.0.2 are both in 10.0.0.0\/24/,
      ['--subnet', '10.0.0.0/24', '--gateway', '10.0.0.1,10.0.0.2', 'x'],
    ],
    [1, /Error: opt: mtu: "big" must be a whole number/, ['-o', 'mtu=big', 'x']],
    [
      1,
      /Error: opt: .*vxlanid_list: "1,2" names several/,
      ['-o', 'com.docker.network.driver.overlay.vxlanid_list=1,2', 'x'],
    ],
    [1, /Error: opt: "color" is unknown to the driver overlay/, ['-o', 'color=red', 'x']],
    [1, /Error: allow: goes with --deny-by-default/, ['--deny-by-default=false', '--allow', 'a:b', 'x']],
    [1, /Error: driver: a bridge ends at its node/, ['-d', 'bridge', 'x']],
    [
      1,
      /Error: config-from: there is no config-only network front/,
      ['-d', 'macvlan', '--config-from', 'front', 'x'],
    ],
    [1, /Error: network with name FRONT already exists/, ['FRONT']],
    [
      1,
      /Error: subnet: 10.5.1.0\/24 overlaps with 10.5.0.0\/16 of network front/,
      ['--subnet', '10.5.1.0/24', 'x'],
    ],
    [1, /Error: network full: no subnet of the pools 10.0.0.0\/8 is free/, ['full']],
    [1, /"tsswarm network create" requires exactly 1 argument\./, []],
  ];
  for (let start = 0; start < cases.length; start += 4)
    await Promise.all(
      cases.slice(start, start + 4).map(async ([code, message, args]) => {
        const result = await cli.run(['network', 'create', ...args]);
        assert.match(result.stderr, message, args.join(' '));
        assert.equal(result.code, code, args.join(' '));
        assert.equal(result.stdout, '');
      }),
    );
  assert.equal(cli.store.view.network.size, 1);
});

test('ls shows what there is, and filters', async () => {
  await using cli = await ControlCli.start();
  for (const name of ['net10', 'net2']) await ok(cli.run(['network', 'create', name]));
  await ok(cli.run(['network', 'create', '--label', 'a=1', '--internal', 'back']));
  await createService(cli, 'web', '--network', 'back');
  const idOf = (name: string) => networkOf(cli, name).id;
  const names = async (...filters: readonly string[]) =>
    ok(cli.run(['network', 'list', '--format', '{{.Name}}', ...filters.flatMap((filter) => ['-f', filter])]));

  const short = (name: string) => idOf(name).slice(0, 12);
  assert.equal(
    await ok(cli.run(['network', 'ls'])),
    `NETWORK ID     NAME      DRIVER    SCOPE
${short('back')}   back      overlay   swarm
${short('net2')}   net2      overlay   swarm
${short('net10')}   net10     overlay   swarm
`,
  );
  assert.equal(await ok(cli.run(['network', 'ls', '-q', '-f', 'name=back'])), `${short('back')}\n`);
  assert.equal(
    await ok(cli.run(['network', 'ls', '-q', '--no-trunc', '-f', 'name=back'])),
    `${idOf('back')}\n`,
  );
  assert.equal(await names('name=net'), 'net2\nnet10\n');
  assert.equal(await names('dangling=true'), 'net2\nnet10\n');
  assert.equal(await names('dangling=false'), 'back\n');
  assert.equal(await names('label=a=1', 'driver=overlay', 'scope=swarm', 'type=custom'), 'back\n');
  assert.equal(await names('type=builtin'), '');
  assert.equal(await names(`id=${short('net10')}`), 'net10\n');
  assert.match(
    (await cli.run(['network', 'ls', '-f', 'size=1'])).stderr,
    /invalid filter "size"; known are dangling/,
  );
  assert.match(
    (await cli.run(['network', 'ls', '-f', 'dangling=maybe'])).stderr,
    /dangling "maybe" must be true/,
  );
  const json = JSON.parse(await ok(cli.run(['network', 'ls', '--format', 'json', '-f', 'name=back'])));
  assert.deepEqual([json.Internal, json.Labels, json.IPv6], [true, 'a=1', false]);
});

test("inspect prints Docker's JSON, and with -v who is part of it", async () => {
  await using cli = await ControlCli.start();
  await ok(
    cli.run(['network', 'create', '--subnet', '10.5.0.0/24', '--mtu', '1400', '--encrypted', 'front']),
  );
  await createService(cli, 'web', '--network', 'front');
  const { id } = networkOf(cli, 'front');
  const node = { ...aNode('n1'), dataPathAddress: '192.168.1.4' };
  const task = {
    ...aTask(serviceOf(cli, 'web').id),
    attachments: [{ networkId: id, addresses: ['10.5.0.7'] }],
  };
  await cli.store.update((tx) => {
    tx.create('node', node);
    tx.create('task', task);
  });

  const [plain] = JSON.parse(await ok(cli.run(['network', 'inspect', 'front'])));
  const [verbose] = JSON.parse(await ok(cli.run(['network', 'inspect', '-v', id.slice(0, 20)])));
  const field = await ok(
    cli.run(['network', 'inspect', '-f', '{{(index .IPAM.Config 0).Gateway}}', 'front']),
  );
  const missing = await cli.run(['network', 'inspect', 'nosuch']);

  assert.deepEqual(plain, {
    Name: 'front',
    Id: id,
    Created: plain.Created,
    Scope: 'swarm',
    Driver: 'overlay',
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: 'default', Options: null, Config: [{ Subnet: '10.5.0.0/24', Gateway: '10.5.0.1' }] },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Containers: {},
    Options: {
      'com.docker.network.driver.overlay.vxlanid_list': '4097',
      'com.docker.network.driver.mtu': '1400',
      encrypted: '',
    },
    Labels: {},
  });
  assert.deepEqual(verbose, {
    ...plain,
    Peers: [{ Name: 'n1', IP: '192.168.1.4' }],
    Services: {
      web: {
        VIP: '10.5.0.2',
        Ports: [],
        LocalLBIndex: 0,
        Tasks: [
          {
            Name: `web.1.${task.id}`,
            EndpointID: task.id,
            EndpointIP: '10.5.0.7',
            Info: { 'Host IP': '192.168.1.4' },
          },
        ],
      },
    },
  });
  assert.equal(field, '10.5.0.1\n');
  assert.equal(missing.code, 1);
  assert.equal(missing.stdout, '[]\n');
  assert.match(missing.stderr, /network nosuch not found/);
});

test('inspect for people says how full a network is', async () => {
  await using cli = await ControlCli.start();
  await ok(
    cli.run([
      'network',
      'create',
      '--subnet',
      '10.5.0.0/29',
      '--internal',
      '--allow',
      '*:web:80',
      '--label',
      'a=1',
      'front',
    ]),
  );
  await createService(cli, 'web', '--network', 'front');

  const { id, meta } = networkOf(cli, 'front');
  assert.equal(
    await ok(cli.run(['network', 'inspect', '--pretty', '-v', 'front'])),
    `ID:\t\t${id}
Name:\t\tfront
Labels:
 a=1
Created:\t${new Date(meta.createdAtMs).toISOString().replace(/\.?0+Z$/, 'Z')}
Driver:\t\toverlay
VNI:\t\t4097
Options:\tinternal
Subnets:
 10.5.0.0/29, gateway 10.5.0.1
Addresses:\t1 of 5 in use, 4 free (0 of tasks, 1 of services)
Policy:\t\tdeny by default
 allow *:web:80/tcp
Services:\tweb
`,
  );
});

test('update changes labels, addresses and the policy', async () => {
  await using cli = await ControlCli.start();
  await ok(cli.run(['network', 'create', '--subnet', '10.5.0.0/24', '--label', 'a=1', 'front']));

  assert.equal(
    await ok(
      cli.run([
        ...['network', 'update', '--label-rm', 'a', '--label-add', 'b=2', '--subnet-add', '10.5.0.0/23'],
        ...[
          '--subnet-add',
          '10.7.0.0/24',
          '--allow-add',
          'web:db',
          '--allow-add',
          'web:log:514/udp',
          'front',
        ],
      ]),
    ),
    'front\n',
  );
  const changed = networkOf(cli, 'front').spec;
  await ok(cli.run(['network', 'update', '--allow-rm', 'web:db', 'front']));
  const narrowed = networkOf(cli, 'front').spec.policy;
  await ok(cli.run(['network', 'update', '--deny-by-default=false', 'front']));

  assert.deepEqual(changed.labels, { b: '2' });
  assert.deepEqual(
    changed.subnets.map(({ subnet, gateway }) => `${subnet} ${gateway}`),
    ['10.5.0.0/23 10.5.0.1', '10.7.0.0/24 '],
  );
  assert.equal(changed.policy?.allow.length, 2);
  assert.deepEqual(narrowed, { allow: [{ from: 'web', to: 'log', protocol: 'udp', port: 514 }] });
  assert.equal(networkOf(cli, 'front').spec.policy, undefined);
  const refusals: readonly (readonly [RegExp, readonly string[]])[] = [
    [/nothing to update/, []],
    [/label-rm: key c doesn't exist/, ['--label-rm', 'c']],
    [/allow-rm: a:b is not among/, ['--allow-rm', 'a:b']],
    [/allow-add: goes with --deny-by-default/, ['--deny-by-default=false', '--allow-add', 'a:b']],
    [/subnet: 10.7.0.0\/25 overlaps with 10.7.0.0\/24/, ['--subnet-add', '10.7.0.0/25']],
  ];
  for (const [message, flags] of refusals) {
    const { code, stderr } = await cli.run(['network', 'update', ...flags, 'front']);
    assert.equal(code, 1, stderr);
    assert.match(stderr, message);
  }
});

test('rm removes what nobody needs, names who needs the rest, and with -f does not mind what is gone', async () => {
  await using cli = await ControlCli.start();
  for (const name of ['front', 'back']) await ok(cli.run(['network', 'create', name]));
  await createService(cli, 'web', '--network', 'back');

  const { code, stdout, stderr } = await cli.run(['network', 'rm', 'front', 'back', 'nosuch']);
  const forced = await cli.run(['network', 'remove', '-f', 'nosuch']);

  assert.equal(code, 1);
  assert.equal(stdout, 'front\n');
  assert.match(
    stderr,
    /Error: network back is in use by service web\nTake it from them first: .*--network-rm/,
  );
  assert.match(stderr, /Error: network nosuch not found\n/);
  assert.deepEqual(forced, { code: 0, stdout: '', stderr: '' });
});

test('prune asks, and leaves what is used, the routing mesh and what filters do not name', async () => {
  await using cli = await ControlCli.start();
  await ok(cli.run(['network', 'create', 'used']));
  await ok(cli.run(['network', 'create', '--ipv4', '--ingress', 'ingress']));
  await ok(cli.run(['network', 'create', '--label', 'keep', 'kept']));
  await ok(cli.run(['network', 'create', 'spare']));
  await createService(cli, 'web', '--network', 'used');
  const prune = (stdin: string, ...flags: readonly string[]) =>
    cli.run(['network', 'prune', ...flags], { stdin });

  const declined = await prune('n\n');
  const old = await prune('', '-f', '--filter', 'until=1h');
  const accepted = await prune('y\n', '--filter', 'label!=keep');
  const bad = await prune('', '-f', '--filter', 'until=soon');

  const question =
    'WARNING! This will remove all networks not used by at least one service.\nAre you sure you want to continue? [y/N] ';
  assert.deepEqual(declined, {
    code: 1,
    stdout: question,
    stderr: 'Error: network prune has been cancelled\n',
  });
  assert.deepEqual(old, { code: 0, stdout: '', stderr: '' });
  assert.deepEqual(accepted, { code: 0, stdout: `${question}Deleted Networks:\nspare\n\n`, stderr: '' });
  assert.match(bad.stderr, /--filter: until "soon" must be a time/);
  assert.deepEqual(
    [...cli.store.view.network.values()].map(({ spec }) => spec.name),
    ['used', 'ingress', 'kept'],
  );
});

test('a service gets networks, ports and how connections are spread, and shows what was chosen', async () => {
  await using cli = await ControlCli.start();
  for (const name of ['front', 'back']) await ok(cli.run(['network', 'create', name]));
  await createService(
    cli,
    'web',
    ...['--network', 'front', '--network', 'name=back,alias=www,alias=site,vip=10.0.2.77,driver-opt=a=b'],
    ...['-p', '8080:80', '-p', '8081:81', '-p', '127.0.0.1:53:53/udp', '-p', 'target=443,local=only'],
    ...['-p', 'target=90,published=9090,interface=eth0', '-p', 'mode=host,target=91,address=10.1.1.1'],
    ...['--affinity', 'client-address', '--weight-label', 'share'],
  );
  const [front, back] = [networkOf(cli, 'front').id, networkOf(cli, 'back').id];

  const [shown] = JSON.parse(await ok(cli.run(['service', 'inspect', 'web'])));
  const pretty = await ok(cli.run(['service', 'inspect', '--pretty', 'web']));

  assert.deepEqual(shown.Spec.TaskTemplate.Networks, [
    { Target: front },
    { Target: back, Aliases: ['www', 'site'], DriverOpts: { a: 'b' }, VirtualIPs: ['10.0.2.77'] },
  ]);
  assert.deepEqual(shown.Endpoint.VirtualIPs, [
    { NetworkID: front, Addr: '10.0.1.2/24' },
    { NetworkID: back, Addr: '10.0.2.77/24' },
  ]);
  assert.deepEqual(shown.Endpoint.Ports.at(3), {
    Protocol: 'tcp',
    TargetPort: 443,
    PublishedPort: 30_003,
    PublishMode: 'ingress',
    Locality: 'only',
  });
  assert.deepEqual(shown.Endpoint.Ports.at(-1), {
    Protocol: 'tcp',
    TargetPort: 91,
    PublishMode: 'host',
    HostAddress: '10.1.1.1',
  });
  assert.equal(shown.Spec.EndpointSpec.Affinity, 'client-address');
  assert.match(
    pretty,
    /\nNetworks:\tfront back\n front: 10.0.1.2\n back: 10.0.2.77\nEndpoint Mode:\tvip\nAffinity:\tclient-address\nWeight Label:\tshare\nPorts:\n PublishedPort = 8080\n/,
  );
  assert.equal(
    await ok(cli.run(['service', 'ls', '--format', '{{.Ports}}'])),
    '*:8080-8081->80-81/tcp, *:30003->443/tcp, 127.0.0.1:53->53/udp, eth0:9090->90/tcp\n',
  );
});

test('update moves a service to other networks by their names', async () => {
  await using cli = await ControlCli.start();
  for (const name of ['front', 'back']) await ok(cli.run(['network', 'create', name]));
  await createService(cli, 'web', '--network', 'front', '--endpoint-mode', 'dnsrr');
  const update = (...flags: readonly string[]) => cli.run(['service', 'update', '-d', ...flags, 'web']);
  const attached = () =>
    serviceOf(cli, 'web').spec.task.networks.map(({ networkId, aliases }) => [
      cli.store.view.network.get(networkId)?.spec.name ?? networkId,
      ...aliases,
    ]);

  await ok(update('--network-add', 'name=back,alias=a'));
  const both = attached();
  await ok(update('--network-add', 'name=BACK,alias=b', '--network-rm', 'front', '--endpoint-mode', 'vip'));
  const moved = attached();
  await ok(update('--network-rm', 'back', '--network-add', 'host'));
  const unknown = await update('--network-add', 'nosuch');

  assert.deepEqual(both, [['front'], ['back', 'a']]);
  assert.deepEqual(moved, [['back', 'b']]);
  assert.deepEqual(attached(), [['host']]);
  assert.equal(serviceOf(cli, 'web').specVersion, 4);
  assert.equal(serviceOf(cli, 'web').spec.endpoint.mode, 'vip');
  assert.match(unknown.stderr, /network nosuch not found/);
});

test('what a service cannot have of the network is refused by name', async () => {
  await using cli = await ControlCli.start();
  await ok(cli.run(['network', 'create', 'front']));
  await createService(cli, 'shop', '-p', '80:80');
  const cases: readonly (readonly [number, RegExp, readonly string[]])[] = [
    [1, /network nosuch not found/, ['--network', 'nosuch']],
    [1, /network: "front" is used twice/, ['--network', 'front', '--network', 'front']],
    [1, /network: "host" goes with no other network/, ['--network', 'front', '--network', 'host']],
    [125, /"--network" flag: unknown key "alais"/, ['--network', 'name=front,alais=a']],
    [125, /"--network" flag: ip is for single containers/, ['--network', 'name=front,ip=10.0.1.5']],
    [125, /"--network" flag: name is missing/, ['--network', 'alias=a']],
    [
      1,
      /network: vip: 10.9.9.9 must be an address of network front: 10.0.1.0\/24/,
      ['--network', 'name=front,vip=10.9.9.9'],
    ],
    [
      1,
      /publish: port 80\/tcp is already in use by service 'shop' \(\w+\) as an ingress port\nPublish another/,
      ['-p', '80:8080'],
    ],
    [
      1,
      /publish: port 80 cannot be published in ingress mode with endpoint-mode dnsrr/,
      ['-p', '81:80', '--endpoint-mode', 'dnsrr'],
    ],
    [125, /"-p, --publish" flag: address "lo" must be an IP address/, ['-p', 'lo:80:80']],
    [1, /publish: address 0.0.0.0 is every address: leave it out/, ['-p', '0.0.0.0:81:80']],
    [125, /"-p, --publish" flag: local "maybe" must be/, ['-p', 'target=80,local=maybe']],
    [125, /"--affinity" flag: must be "none" or "client-address"/, ['--affinity', 'cookie']],
  ];
  for (let start = 0; start < cases.length; start += 4)
    await Promise.all(
      cases.slice(start, start + 4).map(async ([code, message, flags]) => {
        const result = await cli.run([
          'service',
          'create',
          '-d',
          '--no-resolve-image',
          '--name',
          'web',
          ...flags,
          'busybox',
        ]);
        assert.match(result.stderr, message, flags.join(' '));
        assert.equal(result.code, code, flags.join(' '));
      }),
    );
  assert.equal(cli.store.view.service.size, 1);
});

test('ps can show the addresses of tasks', async () => {
  await using cli = await ControlCli.start();
  await ok(cli.run(['network', 'create', 'front']));
  await createService(cli, 'web', '--network', 'front');
  const attachments = [{ networkId: networkOf(cli, 'front').id, addresses: ['10.0.1.7', 'fd00::7'] }];
  await cli.store.update((tx) => tx.create('task', { ...aTask(serviceOf(cli, 'web').id), attachments }));

  assert.equal(
    await ok(cli.run(['service', 'ps', '--format', '{{.Name}} {{.Addresses}}', 'web'])),
    'web.1 10.0.1.7, fd00::7\n',
  );
});

test('why says what the allocator has not given, and what would help', async () => {
  await using cli = await ControlCli.start();
  await ok(cli.run(['network', 'create', '--subnet', '10.5.0.0/29', 'small']));
  await createService(cli, 'web', '--network', 'small', '-p', '8080:80', '-p', 'target=81');
  const web = serviceOf(cli, 'web');
  const attachments = [{ networkId: networkOf(cli, 'small').id, addresses: ['10.5.0.3'] }];
  const waiting = aTask(web.id, { state: 'new', nodeId: '' });
  const error = 'no free address in network small';
  const before = await cli.run(['why', 'web']);
  await cli.allocator.stop();
  await cli.store.update((tx) => {
    tx.update('service', { ...web, virtualAddresses: [], ports: [] });
    for (let slot = 2; slot <= 6; slot++) tx.create('task', { ...aTask(web.id, { slot }), attachments });
    tx.create('task', { ...waiting, status: { ...waiting.status, error } });
  });

  const { code, stdout } = await cli.run(['why', 'web']);

  assert.doesNotMatch(before.stdout, /allocator/);
  assert.equal(code, 1);
  const more = '→ give it more addresses: tsswarm network update --subnet-add SUBNET small';
  const mesh = '→ there is no ingress network: tsswarm network create --ingress ingress';
  assert.match(
    stdout,
    new RegExp(`✘ allocator: it has no address in network small: all of them are in use\\n +${more}\\n`),
  );
  assert.match(stdout, new RegExp(`✘ allocator: port 8080/tcp is not published yet\\n +${mesh}\\n`));
  assert.match(stdout, new RegExp(`✘ allocator: port for 81/tcp is not published yet\\n +${mesh}\\n`));
  assert.match(stdout, new RegExp(`✘ allocator: new since [^:]+: ${error}\\n +${more}\\n`));
});

test('completion knows the names of networks', async () => {
  await using cli = await ControlCli.start();
  for (const name of ['front', 'back']) await ok(cli.run(['network', 'create', name]));

  assert.equal(await ok(cli.run(['__complete', 'network', 'rm', 'f'])), 'front\n:4\n');
  assert.equal(await ok(cli.run(['__complete', 'service', 'create', '--network', ''])), 'front\nback\n:4\n');
  assert.equal(await ok(cli.run(['__complete', 'service', 'update', '--network-rm', 'b'])), 'back\n:4\n');
  assert.match(await ok(cli.run(['__complete', 'network', 'p'])), /^prune\t/);
});

test('the managers themselves give a network and its services what they need', async () => {
  await using cli = await CliCluster.start();
  const { control } = cli.cluster;

  await ok(cli.run(['network', 'create', '--subnet', '10.5.0.0/28', 'front']));
  const created = await cli.run([
    ...[
      'service',
      'create',
      '-q',
      '--no-resolve-image',
      '--name',
      'web',
      '--network',
      'name=front,vip=10.5.0.9',
    ],
    ...[
      '--update-monitor',
      '50ms',
      '-p',
      '8080:80',
      '-p',
      'target=81',
      '-p',
      'mode=host,target=82',
      'busybox',
    ],
  ]);
  const { service } = await control.getService({ service: 'web' });
  const full = await ok(cli.run(['network', 'inspect', '--pretty', 'front']));
  await ok(
    cli.run(['network', 'update', '--subnet-add', '10.5.0.0/24', '--subnet-add', '10.6.0.0/24', 'front']),
  );
  const wider = await eventually(async () => {
    const { network } = await control.getNetwork({ network: 'front', verbose: false });
    return network.subnets.length === 2 && network.subnets;
  });
  const removed = await cli.run(['network', 'rm', 'front', 'ingress']);
  const why = await ok(cli.run(['why', 'web']));
  const ports = await ok(cli.run(['service', 'ls', '--format', '{{.Ports}}']));

  assert.equal(created.code, 0, created.stderr);
  assert.deepEqual(
    service.virtualAddresses.map(({ address }) => address),
    ['10.5.0.9'],
  );
  assert.match(full, /\nAddresses:\t2 of 13 in use, 11 free \(1 of tasks, 1 of services\)\n/);
  assert.deepEqual(
    wider.map(({ subnet, gateway }) => `${subnet} ${gateway}`),
    ['10.5.0.0/24 10.5.0.1', '10.6.0.0/24 10.6.0.1'],
  );
  assert.match(
    removed.stderr,
    /network front is in use by service web\n.*network ingress is in use by service web\n/s,
  );
  assert.match(why, /web: 1 of 1 tasks are running\n$/);
  assert.match(ports, /^\*:8080->80\/tcp, \*:30000->81\/tcp\n$/);
  await cli.run(['service', 'rm', 'web']);
  await eventually(async () => (await cli.run(['network', 'rm', 'front'])).code === 0);
});

test('a network that the managers have no room for is refused, and nothing of it stays', async () => {
  await using cli = await CliCluster.start();
  const names = async () => ok(cli.run(['network', 'ls', '--format', '{{.Name}}']));
  // All of 10.0.0.0/8 but its first /24, which the ingress network has.
  const rest = Array.from(
    { length: 16 },
    (_, index): Prefix => ({
      family: 4,
      base: (10n << 24n) + (1n << BigInt(23 - index)),
      length: 9 + index,
    }),
  );
  await ok(cli.run(['network', 'create', '--subnet', rest.map(formatPrefix).join(','), 'big']));

  const refused = await cli.run(['network', 'create', 'front']);

  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^Error: network front: no free subnet: the address pools \(10.0.0.0\/8\)/);
  assert.equal(await names(), 'big\ningress\n');
});
