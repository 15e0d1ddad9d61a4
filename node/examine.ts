// What of this machine stands in the way of a cluster, and what will hurt: `tsswarm doctor`, and the look before a join.

import type { EngineDescription } from '../agent/engine/engine.ts';
import { defaultClusterNetwork } from '../core/defaults.ts';
import { SwarmError } from '../core/errors.ts';
import type { Finding } from '../proto/generated/node.ts';
import {
  type ManagerFacts,
  probeCgroup,
  probeDataPort,
  probeFlush,
  probeKernel,
  probeManager,
  probeMemory,
  probeSpace,
} from './host-probes.ts';
import {
  judgeCgroup,
  judgeClock,
  judgeContainerd,
  judgeDataPort,
  judgeFirewall,
  judgeFlush,
  judgeKernel,
  judgeManagers,
  judgeMemory,
  judgeMtu,
  judgeRuntime,
  judgeSpace,
} from './judgements.ts';

export interface Examination {
  /** host:port of managers to try; none of them is this machine's own. */
  readonly managers: readonly string[];
  readonly dataRoot: string;
  readonly runDir: string;
  readonly engine: EngineDescription;
  /** What other firewalls do to containers, in sentences. */
  readonly networkWarnings: readonly string[];
  /** A manager keeps its log in the data root. */
  readonly isLog: boolean;
}

/** Takes about a second, and some more for managers that do not answer. Leaves nothing behind. */
export async function examineHost(examination: Examination): Promise<Finding[]> {
  const { managers, dataRoot, runDir, engine, networkWarnings, isLog } = examination;
  const kernel = judgeKernel(await probeKernel({ dataRoot, runDir }));
  const flush = judgeFlush({ ...(await probeFlush(dataRoot)), isLog });
  const [space, dataPort, contacts] = await Promise.all([
    probeSpace(dataRoot),
    probeDataPort(defaultClusterNetwork.dataPathPort),
    Promise.all(managers.map(probeManager)),
  ]);
  return [
    ...judgeContacts(contacts),
    judgeCgroup(probeCgroup()),
    ...kernel,
    judgeDataPort(dataPort),
    ...judgeFirewall(networkWarnings),
    flush,
    judgeSpace(space),
    judgeMemory(probeMemory()),
    judgeContainerd(engine.containerdVersion),
    judgeRuntime(engine.runtime),
  ];
}

/** Throws the first fatal finding as a refusal; returns those that are worth a warning. */
export function requireFit(findings: readonly Finding[]): Finding[] {
  const fatal = findings.find(({ severity }) => severity === 'fatal');
  if (fatal !== undefined)
    throw new SwarmError('failed-precondition', `${fatal.subject}: ${fatal.text}`, { hint: fatal.remedy });
  return findings.filter(({ severity }) => severity === 'warning');
}

function judgeContacts(facts: readonly ManagerFacts[]): Finding[] {
  const links = new Map(facts.flatMap(({ link }) => (link === undefined ? [] : [[link.name, link]])));
  return [
    ...judgeManagers(facts.map(({ contact }) => contact)),
    ...facts.flatMap(({ clock }) => (clock === undefined ? [] : [judgeClock(clock)])),
    ...[...links.values()].map(judgeMtu),
  ];
}
