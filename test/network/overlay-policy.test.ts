// Who may begin connections to whom in an overlay network. Two machines (overlay-lab.ts).

import assert from 'node:assert/strict';
import type { NetworkPolicy } from '../../agent/network/overlay/overlay.ts';
import { type Container, check, net, type OverlayLab, withLab } from './overlay-lab.ts';

const VIP = '10.0.1.2';
const PORT = 80;
const OTHER_PORT = 81;

let lab: OverlayLab;
/** One of each on each host. */
let front: Container[];
let back: Container[];

withLab(2, async (opened) => {
  lab = opened;
  [front, back] = [[], []];
  for (const [index, host] of lab.hosts.entries()) {
    await host.ensure(net);
    front.push(await lab.container(host, net.id, `10.0.1.${(index + 1) * 10 + 1}`));
    back.push(await lab.container(host, net.id, `10.0.1.${(index + 1) * 10 + 2}`));
  }
});

async function allow(rules: NetworkPolicy['allow'] | undefined): Promise<void> {
  const addressesOf = (containers: readonly Container[]) => containers.map(({ address }) => address);
  const groups = [
    { name: 'front', addresses: addressesOf(front) },
    { name: 'back', addresses: addressesOf(back) },
  ];
  const services = [{ vip: VIP, backends: addressesOf(back) }];
  await lab.connect(net.id, [...front, ...back], {
    services,
    ...(rules && { policy: { groups, allow: rules } }),
  });
}

/** An answer names the server and the client; anything else is the reason why there is none. */
async function reaches(
  from: Container,
  protocol: 'tcp' | 'udp',
  address: string,
  port = PORT,
): Promise<boolean> {
  const answer = await from.ask(protocol, address, port);
  return /^\d+\.\d+\.\d+\.\d+ /.test(answer);
}

check('without a policy everybody reaches everybody', async () => {
  await allow(undefined);
  for (const from of [...front, ...back])
    for (const to of [...front, ...back]) assert.ok(await reaches(from, 'tcp', to.address));
});

check('with a policy that allows nothing, nobody reaches anybody, on this node or another', async () => {
  await allow([]);
  for (const protocol of ['tcp', 'udp'] as const)
    for (const from of front)
      for (const address of [...back.map((to) => to.address), VIP])
        assert.equal(await reaches(from, protocol, address), false, `${from.address} ${address}`);
});

check(
  'a rule lets one group begin, directly and by the virtual address; the other only answers',
  async () => {
    await allow([{ from: 'front', to: 'back' }]);
    for (const protocol of ['tcp', 'udp'] as const) {
      for (const from of front)
        for (const address of [...back.map((to) => to.address), VIP])
          assert.ok(await reaches(from, protocol, address), `${from.address} ${address}`);
      for (const from of back) assert.equal(await reaches(from, protocol, front[0]!.address), false);
      assert.equal(await reaches(front[0]!, protocol, front[1]!.address), false);
    }
  },
);

check('a rule with a port is for that protocol and port', async () => {
  await allow([{ from: 'front', to: 'back', port: { protocol: 'tcp', number: OTHER_PORT } }]);
  assert.equal(await reaches(front[0]!, 'tcp', back[1]!.address), false);
  assert.ok(await reaches(front[0]!, 'tcp', back[1]!.address, OTHER_PORT));
  assert.equal(await reaches(front[0]!, 'udp', back[1]!.address, OTHER_PORT), false);
});

check(
  'a policy that somebody removed is missed and put back; one that is taken back leaves nothing',
  async () => {
    const [host] = lab.hosts;
    await allow([]);
    host!.inNetwork(net.id, 'nft', 'delete', 'table', 'ip', 'tsswarm_policy');
    const drift = await host!.overlay.call<{ what: string }[]>('repair', net.id);
    assert.deepEqual(
      drift.map(({ what }) => what),
      ['policy'],
    );
    assert.equal(await reaches(front[0]!, 'tcp', back[1]!.address), false);

    await allow(undefined);
    assert.doesNotMatch(host!.inNetwork(net.id, 'nft', 'list', 'tables'), /tsswarm_policy/);
    assert.ok(await reaches(front[0]!, 'tcp', back[1]!.address));
  },
);
