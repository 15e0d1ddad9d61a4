// Affinities between services: "service==db" asks for nodes that have tasks of db, "service!=web" for nodes that have none
// of web, and keeps web from nodes that have tasks of this service as well.

import { invalidField } from './errors.ts';

export interface Affinity {
  /** The name of the other service. */
  readonly service: string;
  readonly isTogether: boolean;
}

const AFFINITY = /^\s*service\s*(?<operator>==|!=)\s*(?<service>[a-zA-Z0-9][a-zA-Z0-9_.-]*)\s*$/;

/** Throws `invalid-argument` that names the flag. */
export function parseAffinity(text: string): Affinity {
  const { operator, service } = AFFINITY.exec(text)?.groups ?? {};
  if (service === undefined)
    throw invalidField('placement-affinity', `"${text}" must be service==NAME or service!=NAME`);
  return { service, isTogether: operator === '==' };
}
