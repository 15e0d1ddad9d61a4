// `net trace` and `net audit`: what the nodes themselves find out about their networks, put together for the operator.

import { messageOf, SwarmError } from '../../core/errors.ts';
import type { Network, Service, Task } from '../../core/generated/objects.ts';
import { taskName } from '../../core/task-name.ts';
import {
  type AuditNetworksRequest,
  type AuditNetworksResponse,
  type ExplainResponse,
  type ExplainStep,
  emptyExplainStep,
  type TraceNetworkRequest,
} from '../../proto/generated/control.ts';
import type { NetworkFinding } from '../../proto/generated/dispatcher.ts';
import type { NodeQuestions } from '../node-questions.ts';
import type { TablesView } from '../store/tables.ts';
import { findNode, findService, findTask } from './find.ts';

interface TraceOptions {
  readonly view: TablesView;
  readonly questions: NodeQuestions;
}

type Draft = Partial<ExplainStep> & Pick<ExplainStep, 'subject' | 'text'>;

/** Throws `not-found` for an unknown service or task. */
export async function traceNetwork(
  options: TraceOptions,
  request: TraceNetworkRequest,
): Promise<ExplainResponse> {
  const { view } = options;
  const target = findService(view, request.to);
  const source = findSource(view, request.from);
  if (source === undefined)
    return explained([broken('task', `no task of ${request.from} runs`, `tsswarm why ${request.from}`)]);
  const from = view.service.get(source.serviceId)?.spec.name ?? source.serviceId;
  const shared = sharedNetworks(view, source, target);
  const [network] = shared;
  const start: Draft = {
    subject: 'from',
    text: `${taskName(from, source)} on ${nodeName(view, source.nodeId)}`,
  };
  if (network === undefined)
    return explained([
      start,
      broken(
        'network',
        `${from} and ${target.spec.name} share no network of the cluster`,
        `tsswarm service update --network-add NETWORK ${target.spec.name}`,
      ),
    ]);
  const steps: Draft[] = [
    start,
    { subject: 'network', text: `${shared.map(({ spec }) => spec.name).join(', ')}: both are part of it` },
    ...policySteps(network, from, target.spec.name, request.port),
  ];
  const path = { taskId: source.id, networkId: network.id, serviceId: target.id, port: request.port };
  const findings = await answers(options, source.nodeId, { repair: false, path });
  return explained([...steps, ...findings.map((finding) => describe(view, target, finding))]);
}

/** Throws `not-found` for an unknown node. */
export async function auditNetworks(
  options: TraceOptions,
  { node, repair }: AuditNetworksRequest,
): Promise<AuditNetworksResponse> {
  const { view } = options;
  const nodes = node === '' ? [...view.node.values()] : [findNode(view, node)];
  const steps = await Promise.all(
    nodes.map(async ({ id }): Promise<Draft[]> => {
      const findings = await answers(options, id, { repair });
      const head = { ok: findings.every(({ ok }) => ok), subject: 'node', text: nodeName(view, id) };
      const rest = findings.map(({ ok, subject, text, remedy }) => ({ ok, subject, text, remedy, depth: 1 }));
      return [
        findings.length === 0
          ? { ...head, text: `${head.text}: is part of no network of the cluster` }
          : head,
        ...rest,
      ];
    }),
  );
  return explained(steps.flat());
}

/** What stands in the way of asking is a finding as well. */
async function answers(
  { questions }: TraceOptions,
  nodeId: string,
  question: Parameters<NodeQuestions['ask']>[1],
): Promise<readonly NetworkFinding[]> {
  try {
    return await questions.ask(nodeId, question);
  } catch (error) {
    if (!(error instanceof SwarmError)) throw error;
    return [{ ok: false, subject: 'node', text: messageOf(error), remedy: 'tsswarm node ls', taskId: '' }];
  }
}

/** The task itself, or one of the service that runs. */
function findSource(view: TablesView, reference: string): Task | undefined {
  const service = view.byName('service', reference) ?? view.service.get(reference);
  const isRunning = ({ status }: Task) => status.state === 'running';
  if (service !== undefined) return view.tasksOfService(service.id).find(isRunning);
  const task = findTask(view, reference);
  if (task === undefined) throw new SwarmError('not-found', `no service or task ${reference}`);
  return isRunning(task) ? task : undefined;
}

function sharedNetworks(view: TablesView, source: Task, target: Service): Network[] {
  const wanted = new Set(target.spec.task.networks.map(({ networkId }) => networkId));
  return source.attachments.flatMap(({ networkId }) =>
    wanted.has(networkId) ? (view.network.get(networkId) ?? []) : [],
  );
}

function policySteps({ spec }: Network, from: string, to: string, port: number): Draft[] {
  if (spec.policy === undefined) return [];
  const rule = spec.policy.allow.find(
    (allow) =>
      (allow.from === '*' || allow.from === from) &&
      (allow.to === '*' || allow.to === to) &&
      (allow.port === 0 || port === 0 || (allow.port === port && allow.protocol === 'tcp')),
  );
  if (rule !== undefined)
    return [
      {
        subject: 'policy',
        text: `allows ${rule.from} → ${rule.to}${rule.port > 0 ? `:${rule.port}/${rule.protocol}` : ''}`,
      },
    ];
  const text = `network ${spec.name} allows no connection from ${from} to ${to}${port > 0 ? `:${port}` : ''}`;
  return [broken('policy', text, `tsswarm network update --allow-add ${from}:${to} ${spec.name}`)];
}

function describe(
  view: TablesView,
  target: Service,
  { ok, subject, text, remedy, taskId }: NetworkFinding,
): Draft {
  const task = taskId === '' ? undefined : view.task.get(taskId);
  if (task === undefined) return { ok, subject, text, remedy };
  const name = `${taskName(target.spec.name, task)} on ${nodeName(view, task.nodeId)}`;
  return { ok, subject, text: `${name}, ${text}`, remedy, depth: 1 };
}

function nodeName(view: TablesView, nodeId: string): string {
  return view.node.get(nodeId)?.description.hostname || nodeId;
}

function broken(subject: string, text: string, remedy: string): Draft {
  return { ok: false, subject, text, remedy };
}

function explained(drafts: readonly Draft[]): ExplainResponse {
  const steps = drafts.map((draft) => ({ ...emptyExplainStep, ok: true, ...draft }));
  return { ok: steps.every(({ ok }) => ok), steps };
}
