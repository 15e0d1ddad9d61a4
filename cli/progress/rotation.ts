// How far the nodes are on their way to a new root. Pure.

import type { RotationProgress } from '../../proto/generated/control.ts';
import { drawBar } from './progress.ts';

// More names than this are of no use to a reader.
const NAMES_MAX = 5;

export function formatRotation({ nodesDone, nodes, waitingFor }: RotationProgress): string[] {
  const part = nodes === 0 ? 1 : nodesDone / nodes;
  const names = waitingFor.slice(0, NAMES_MAX).join(', ');
  const more = waitingFor.length > NAMES_MAX ? ` and ${waitingFor.length - NAMES_MAX} more` : '';
  return [
    `rotated TLS certificates:  ${drawBar(part)} ${nodesDone}/${nodes} nodes`,
    ...(names === '' ? [] : [`waiting for: ${names}${more}`]),
  ];
}
