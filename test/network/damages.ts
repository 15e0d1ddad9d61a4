// What somebody may change behind an overlay's back: a test for each that it is found and mended.

import assert from 'node:assert/strict';
import type { Drift } from '../../agent/network/overlay/overlay.ts';
import { check, type OverlayHost } from './overlay-lab.ts';

export type Damage = readonly [
  what: string,
  where: 'network' | 'host',
  command: string,
  found: Partial<Drift>,
];

export interface Damaged {
  /** Opened before the tests run. */
  readonly host: () => OverlayHost;
  readonly networkId: string;
  /** Fails when something does not. */
  readonly works: () => Promise<void>;
}

export function checkDamages(damages: readonly Damage[], { host, networkId, works }: Damaged): void {
  for (const [what, where, command, found] of damages) {
    check(`${what}: changed, found, mended`, async () => {
      if (where === 'host') host().run(command);
      else host().inNetwork(networkId, command);

      const drift = await host().overlay.call<Drift[]>('audit', networkId);
      const isFound = drift.some((each) =>
        Object.entries(found).every(([key, value]) => each[key as keyof Drift] === value),
      );
      assert.ok(isFound, JSON.stringify(drift));
      assert.deepEqual(await host().overlay.call('repair', networkId), drift);
      assert.deepEqual(await host().overlay.call('audit', networkId), []);
      await works();
    });
  }
}
