import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newServiceSpec } from '../../core/defaults.ts';
import {
  type ContainerSpec,
  emptyDnsConfig,
  emptyMeta,
  emptyTask,
  type Revision,
} from '../../core/generated/objects.ts';
import { containerConfig, networkRequest, withUserns } from './container-config.ts';

function revision(container: Partial<ContainerSpec>): Revision {
  const spec = newServiceSpec('web', { image: 'nginx', ...container });
  return { id: 'r', meta: emptyMeta, serviceId: 's', specVersion: 1, spec, registryAuth: false };
}

function resolvConf(given: string, container: Partial<ContainerSpec>): string | undefined {
  const endpoint = { id: 't', namespacePath: '/ns', address: '10.0.0.2', ports: [], resolvConf: given };
  const own = revision(container);
  const parts = { container: own.spec.task.container, files: [], endpoint };
  return containerConfig(emptyTask, own, parts).network?.resolvConf;
}

const OF_NODE = '# Of the node.\nnameserver 192.0.2.53\nsearch lan\noptions edns0\n';
const OF_NETWORK = 'nameserver 127.0.0.11\nsearch lan\noptions ndots:0\n';

test('what a service says of names takes the place of what the node says', () => {
  const nameServers = ['10.9.9.9', '2001:db8::53'];

  assert.equal(resolvConf(OF_NODE, {}), OF_NODE);
  assert.equal(
    resolvConf(OF_NODE, { dns: { nameServers, search: ['a.example', 'b.example'], options: [] } }),
    '# Of the node.\noptions edns0\nnameserver 10.9.9.9\nnameserver 2001:db8::53\nsearch a.example b.example\n',
  );
  assert.equal(
    resolvConf(OF_NODE, { dns: { ...emptyDnsConfig, search: ['.'], options: ['ndots:3'] } }),
    '# Of the node.\nnameserver 192.0.2.53\noptions ndots:3\n',
  );
});

test("in a network of the cluster its name server stays, and asks the service's", () => {
  const dns = { ...emptyDnsConfig, nameServers: ['10.9.9.9'] };

  assert.equal(resolvConf(OF_NETWORK, { dns }), OF_NETWORK);
  assert.deepEqual(networkRequest(emptyTask, revision({ dns }).spec).nameServers, ['10.9.9.9']);
  assert.equal(networkRequest(emptyTask, revision({}).spec).nameServers, undefined);
});

test('whether containers have users of their own, the service says, or else the node', () => {
  const modeOf = (usernsMode: string, usual?: string) =>
    withUserns(revision({ usernsMode }).spec.task.container, usual).usernsMode;

  assert.deepEqual([modeOf('', 'private'), modeOf('', 'host'), modeOf('')], ['private', 'host', '']);
  assert.deepEqual([modeOf('host', 'private'), modeOf('private', 'host')], ['host', 'private']);
});
