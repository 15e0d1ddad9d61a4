// `--allow FROM:TO[:PORT[/PROTOCOL]]`: who may open connections in a network. Pure.

import { emptyPolicyRule, type PolicyRule } from '../../core/generated/objects.ts';
import { oneOf } from './units.ts';

const parseProtocol = oneOf('tcp', 'udp', 'sctp');
const SYNTAX = 'must be FROM:TO[:PORT[/PROTOCOL]], as in web:db:5432; * is any service';

export function parseRule(text: string): PolicyRule {
  const { from, to, port, protocol } =
    /^(?<from>[^:]+):(?<to>[^:]+)(?::(?<port>\d{1,5})(?:\/(?<protocol>\w+))?)?$/.exec(text)?.groups ?? {};
  if (from === undefined || to === undefined) throw new Error(SYNTAX);
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535))
    throw new Error(`port "${port}" must be from 1 to 65535`);
  return {
    ...emptyPolicyRule,
    from,
    to,
    ...(port !== undefined && { port: Number(port) }),
    ...(protocol !== undefined && { protocol: parseProtocol(protocol.toLowerCase()) }),
  };
}

/** As it is written for `--allow`. */
export function formatRule({ from, to, port, protocol }: PolicyRule): string {
  return port === 0 ? `${from}:${to}` : `${from}:${to}:${port}/${protocol}`;
}
