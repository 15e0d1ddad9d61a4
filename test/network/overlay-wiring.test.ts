// Networks of the overlay in the kernel: real namespaces, real traffic, machines of their own (overlay-lab.ts).

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeNamespace } from '../../agent/linux/namespace.ts';
import { eventually } from '../support/eventually.ts';
import { type Container, check, net, type OverlayHost, OverlayLab, withLab } from './overlay-lab.ts';

let lab: OverlayLab;
let one: OverlayHost;
let two: OverlayHost;
let hostBefore: ReturnType<OverlayHost['traces']>;
let a: Container;
let b: Container;
let far: Container;

withLab(2, async (opened) => {
  lab = opened;
  [one, two] = lab.hosts as [OverlayHost, OverlayHost];
  hostBefore = one.traces();
  for (const host of lab.hosts) await host.ensure(net);
  a = await lab.container(one, net.id, '10.0.1.10');
  b = await lab.container(one, net.id, '10.0.1.11');
  far = await lab.container(two, net.id, '10.0.1.20');
  await lab.connect(net.id, [a, b, far]);
});

for (const protocol of ['tcp', 'udp'] as const) {
  check(`containers reach each other on one node and across nodes (${protocol})`, async () => {
    for (const from of [a, b, far]) {
      for (const to of [a, b, far]) {
        assert.equal(await from.ask(protocol, to.address), `${to.address} ${from.address}`);
      }
    }
  });
}

check('ensuring and attaching again changes nothing', async () => {
  const tables = one.inNetwork(net.id, 'nft list ruleset');

  await one.ensure(net);
  await one.overlay.call('attach', a.endpoint);

  assert.equal(one.inNetwork(net.id, 'nft list ruleset'), tables);
  assert.equal(await a.ask('tcp', far.address), `${far.address} ${a.address}`);
});

check('a network carries what the underlay carries less 50 bytes, and no more can be asked for', async () => {
  assert.match(a.run('ip link show eth0'), /mtu 1450/);
  assert.match(one.inNetwork(net.id, 'ip link show vx0'), /mtu 1450/);

  await assert.rejects(one.ensure({ ...net, id: 'wide', vni: 7, mtu: 1451 }), {
    code: 'failed-precondition',
    message: 'mtu: 1451 is more than interface eth0 carries for an overlay: 1450',
  });
  assert.ok(!(await one.list()).some(({ networkId }) => networkId === 'wide'));
});

check('a container cannot send with the address of another', async () => {
  a.run(`ip address add 10.0.1.99/32 dev eth0`);
  a.run(`ip route add ${b.address}/32 via 10.0.1.1 dev eth0 onlink src 10.0.1.99`);

  assert.equal(await a.ask('udp', b.address), 'silence');

  a.run(`ip route del ${b.address}/32`);
  a.run('ip address del 10.0.1.99/32 dev eth0');
});

check('addresses that nobody has are unreachable, and do not leave by the way out', async () => {
  assert.match(await a.ask('tcp', '10.0.1.77'), /EHOSTUNREACH|ENETUNREACH/);
});

check('an address or an id that is in use is refused', async () => {
  await assert.rejects(one.overlay.call('attach', one.endpoint(net.id, a.address, { id: 'thief' })), {
    code: 'already-exists',
  });
  await assert.rejects(one.overlay.call('attach', one.endpoint(net.id, '10.0.1.1')), {
    code: 'invalid-argument',
  });
  await assert.rejects(one.overlay.call('attach', one.endpoint('nowhere', '10.0.1.12')), {
    code: 'not-found',
  });
  removeNamespace(join(one.runDir, 'containers', 'thief'));
  removeNamespace(join(one.runDir, 'containers', 'c-10.0.1.1'));
  removeNamespace(join(one.runDir, 'containers', 'c-10.0.1.12'));
});

check('an address is used again at once, here or on another node', async () => {
  for (const host of [one, two, two, one]) {
    const mover = await lab.container(host, net.id, '10.0.1.30');
    await lab.connect(net.id, [a, b, far, mover]);
    for (const from of [a, far]) {
      assert.equal(await from.ask('tcp', mover.address), `${mover.address} ${from.address}`);
    }
    await mover.leave();
    await lab.connect(net.id, [a, b, far]);
  }
});

check('another network has the same VXLAN number as soon as the first is gone', async () => {
  for (let round = 0; round < 5; round++) {
    const id = `round${round}`;
    await one.ensure({
      ...net,
      id,
      vni: 0x100002,
      subnets: [{ subnet: '10.0.2.0/24', gateway: '10.0.2.1' }],
    });
    await one.overlay.call('remove', id);
  }
});

check('a VXLAN number that a network of an earlier process still has is taken from it', async () => {
  const stale = {
    ...net,
    id: 'stale',
    vni: 0x100003,
    subnets: [{ subnet: '10.0.3.0/24', gateway: '10.0.3.1' }],
  };
  await one.ensure(stale);
  await one.restart();
  await one.ensure(net);

  await one.ensure({ ...stale, id: 'fresh' });

  assert.deepEqual((await one.list()).map(({ networkId }) => networkId).sort(), ['fresh', 'net1']);
  await one.overlay.call('remove', 'fresh');
});

check('a VXLAN number in use by somebody else is named', async () => {
  one.run('ip link add foreign type vxlan id 4242 dstport 4789 local 192.0.2.1');

  await assert.rejects(one.ensure({ ...net, id: 'other', vni: 4242 }), {
    code: 'failed-precondition',
    message: 'vni: VXLAN id 4242 is in use on this node',
  });
  one.run('ip link del foreign');
  assert.ok(!(await one.list()).some(({ networkId }) => networkId === 'other'));
});

check('a busy port of the data path is named, and nothing half made is left', async () => {
  const third = new OverlayLab(1);
  try {
    await third.ready();
    const [host] = third.hosts as [OverlayHost];
    const machine = host.traces();
    const holder = third.program(host.path, 'peer.ts', ['serve', '4789']);
    await holder.line();

    await assert.rejects(host.ensure(net), {
      code: 'failed-precondition',
      message: 'UDP port 4789, the data path of overlay networks, is in use on this node',
    });

    await holder.kill();
    assert.deepEqual(host.traces(), machine);
    await host.ensure(net);
  } finally {
    await third[Symbol.asyncDispose]();
  }
});

check('killing the process interrupts nothing, and the next one takes over', async () => {
  await a.peer.call('open', { name: 'kept', host: far.address });
  const [before] = await one.list();

  await one.overlay.program.kill();
  assert.equal(await a.peer.call('send', { name: 'kept', text: 'alone' }), 'alone');
  assert.equal(await far.ask('tcp', a.address), `${a.address} ${far.address}`);
  await one.restart();
  assert.deepEqual(await one.list(), [before]);
  await one.ensure(net);

  assert.equal(await a.peer.call('send', { name: 'kept', text: 'adopted' }), 'adopted');
  assert.deepEqual(await one.list(), [before]);
  assert.deepEqual(await one.overlay.call('audit', net.id), []);
});

/** Kills the process before each of its requests to the kernel, until it finishes unharmed; how often that was. */
async function killAtEveryStep(act: () => Promise<void>, afterwards: () => Promise<void>): Promise<number> {
  for (let requests = 0; ; requests++) {
    await one.overlay.call('dieAfter', requests);
    const isDone = await act().then(
      () => true,
      () => false,
    );
    await one.restart();
    await one.ensure(net);
    await afterwards();
    if (isDone) return requests;
  }
}

check('killed at any step of an attachment or detachment, nothing half made stays', async () => {
  const endpoint = one.endpoint(net.id, '10.0.1.40');
  const remotes = [{ address: far.address, nodeAddress: two.address }];
  const steps = await killAtEveryStep(
    async () => {
      await one.overlay.call('attach', endpoint);
      await one.overlay.call('detach', endpoint);
    },
    async () => {
      assert.deepEqual(await one.overlay.call('audit', net.id), []);
      await one.overlay.call('attach', endpoint);
      assert.deepEqual(await one.overlay.call('audit', net.id), []);
      await one.overlay.call('detach', endpoint);
      await one.apply(net.id, { remotes });
      assert.equal(await a.ask('tcp', far.address), `${far.address} ${a.address}`);
    },
  );
  assert.ok(steps > 6);
});

check(
  'killed at any step of making or removing a network, the next process makes or removes it',
  async () => {
    const second = {
      ...net,
      id: 'net2',
      vni: 0x100009,
      subnets: [{ subnet: '10.0.9.0/24', gateway: '10.0.9.1' }],
    };
    const state = {
      remotes: [{ address: '10.0.9.9', nodeAddress: two.address }],
      services: [{ vip: '10.0.9.2', backends: ['10.0.9.9'] }],
    };
    const steps = await killAtEveryStep(
      async () => {
        await one.ensure(second);
        await one.apply(second.id, state);
        await one.overlay.call('remove', second.id);
      },
      async () => {
        await one.ensure(second);
        await one.apply(second.id, state);
        assert.deepEqual(await one.overlay.call('audit', second.id), []);
        await one.overlay.call('remove', second.id);
        assert.deepEqual(
          (await one.list()).map(({ networkId }) => networkId),
          ['net1'],
        );
        assert.doesNotMatch(one.run('ip -o link'), /vx0/);
      },
    );
    assert.ok(steps > 6);
  },
);

check('what a crash can leave is cleaned up', async () => {
  await one.overlay.program.kill();
  writeFileSync(join(one.runDir, 'overlay', 'never-mounted'), '');
  removeNamespace(b.endpoint.namespacePath);

  await one.restart();
  await one.ensure(net);

  assert.deepEqual(one.traces().files.sort(), [
    'containers/c-10.0.1.10',
    'overlay-forwarding',
    'overlay/net1',
  ]);
  const [inventory] = await one.list();
  assert.deepEqual(inventory!.endpoints, [a.endpoint]);
  assert.deepEqual(await one.overlay.call('audit', net.id), []);
});

check('removing the networks leaves the host as it was', async () => {
  await b.peer.program.kill();
  await a.leave();

  await one.overlay.call('remove', net.id);

  await eventually(() => {
    assert.deepEqual(one.traces(), hostBefore);
    return true;
  });
});
