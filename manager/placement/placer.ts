// Places for tasks in the making, so that what makes them stores them with a node at once: a write less for each.

import type { ServiceSpec, Task } from '../../core/generated/objects.ts';

export interface Placer {
  /**
   * Tasks of one service and spec as they are to be created: ASSIGNED, as far as there is room. The others are as they were,
   * and those that wait already come first. What was placed has to be settled when it is stored, or will not be.
   */
  placeNew(spec: ServiceSpec, tasks: readonly Task[]): readonly Task[];
  settle(taskIds: readonly string[]): void;
}
