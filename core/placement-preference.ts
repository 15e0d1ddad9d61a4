// Placement preferences: "spread=node.labels.rack" asks for as many tasks in each rack.

import { invalidField } from './errors.ts';
import type { Node } from './generated/objects.ts';

export interface PlacementPreference {
  /** "node.labels.rack" */
  readonly key: string;
  /** Of a node without the label: empty. */
  readonly valueOf: (node: Node) => string;
}

const PREFERENCE = /^spread=(?<kind>node|engine)\.labels\.(?<label>[a-zA-Z0-9._-]+)$/;

/** Throws `invalid-argument` that names the flag. */
export function parsePlacementPreference(text: string): PlacementPreference {
  const { kind, label } = PREFERENCE.exec(text)?.groups ?? {};
  if (kind === undefined || label === undefined)
    throw invalidField(
      'placement-pref',
      `"${text}" must be spread=node.labels.LABEL or spread=engine.labels.LABEL`,
    );
  const labelsOf = ({ spec, description }: Node) =>
    kind === 'node' ? spec.labels : description.engineLabels;
  return { key: `${kind}.labels.${label}`, valueOf: (node) => labelsOf(node)[label] ?? '' };
}
