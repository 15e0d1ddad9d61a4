// Affinities between services: "service==db" asks for nodes that have tasks of db, "service!=web" for nodes that have none
// of web, and keeps web from nodes that have tasks of this service as well. With "prefer:" before it, such nodes come first and
// others will do, and nothing is kept from anybody.

import { invalidField } from './errors.ts';

export interface Affinity {
  /** The name of the other service. */
  readonly service: string;
  readonly isTogether: boolean;
  readonly isPreferred: boolean;
}

const AFFINITY =
  /^\s*(?<prefer>prefer:)?\s*service\s*(?<operator>==|!=)\s*(?<service>[a-zA-Z0-9][a-zA-Z0-9_.-]*)\s*$/;

/** Throws `invalid-argument` that names the flag. */
export function parseAffinity(text: string): Affinity {
  const { prefer, operator, service } = AFFINITY.exec(text)?.groups ?? {};
  if (service === undefined)
    throw invalidField(
      'placement-affinity',
      `"${text}" must be service==NAME, service!=NAME or one of them after prefer:`,
    );
  return { service, isTogether: operator === '==', isPreferred: prefer !== undefined };
}
