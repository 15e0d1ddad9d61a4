// Which nodes a service with one task on each node is for.

import { matchesConstraint, normalArchitecture, parseConstraint } from './constraint.ts';
import type { Node, Placement, Platform } from './generated/objects.ts';

/** Whether the node is where the placement wants tasks, whatever else is the matter with it. */
export function fitsPlacement(node: Node, { constraints, platforms }: Placement): boolean {
  return (
    constraints.every((text) => matchesConstraint(parseConstraint(text), node)) &&
    (platforms.length === 0 || platforms.some((platform) => isOfPlatform(node, platform)))
  );
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
