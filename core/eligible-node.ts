// Where a placement wants tasks, and which nodes take any.

import { isDeepStrictEqual } from 'node:util';
import { matchesConstraint, normalArchitecture, parseConstraint } from './constraint.ts';
import type { Node, Placement, Platform } from './generated/objects.ts';

/** Whether a node is where the placement wants tasks, whatever else is the matter with it. */
export function placementCheck({ constraints, platforms }: Placement): (node: Node) => boolean {
  const parsed = constraints.map(parseConstraint);
  return (node) =>
    parsed.every((constraint) => matchesConstraint(constraint, node)) &&
    (platforms.length === 0 || platforms.some((platform) => isOfPlatform(node, platform)));
}

/** The same of one node. */
export function fitsPlacement(node: Node, placement: Placement): boolean {
  return placementCheck(placement)(node);
}

/** The same without the platform. */
export function fitsConstraints(node: Node, { constraints }: Placement): boolean {
  return constraints.every((text) => matchesConstraint(parseConstraint(text), node));
}

/** Whether the image of this platform runs on the node; what is empty fits any. */
export function isOfPlatform({ description }: Node, { os, architecture }: Platform): boolean {
  return (
    (os === '' || os === description.platform.os) &&
    (architecture === '' ||
      normalArchitecture(architecture) === normalArchitecture(description.platform.architecture))
  );
}

/** Whether it is to get tasks that it does not have yet. */
export function takesTasks({ status, spec }: Node): boolean {
  return status.state === 'ready' && spec.availability === 'active';
}

/** Whether no placement can tell one from the other, which is the same node at another time. */
export function isSamePlace(one: Node, other: Node): boolean {
  return isDeepStrictEqual(placeOf(one), placeOf(other));
}

/** What constraints, platforms and preferences look at, and whether it takes tasks. */
function placeOf({ spec, description, status, role }: Node): unknown {
  const { hostname, platform, engineLabels } = description;
  return [
    spec.availability,
    spec.labels,
    role,
    status.state,
    status.address,
    hostname,
    platform,
    engineLabels,
  ];
}
