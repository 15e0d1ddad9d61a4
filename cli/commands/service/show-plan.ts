// What `--dry-run` shows: the managers' plan, and what this machine knows of the image.

import type { PlanServiceRequest } from '../../../proto/generated/control.ts';
import type { Control } from '../../connection.ts';
import type { Io } from '../../io.ts';
import { formatExplanation } from '../why.ts';

interface PlanAsked {
  readonly control: Control;
  readonly io: Io;
  readonly asked: PlanServiceRequest;
}

/** Returns the exit status: 1 when something of it does not fit. */
export async function showPlan({ control, io, asked }: PlanAsked): Promise<number> {
  const { ok, steps } = await control.planService(asked);
  await io.out(formatExplanation({ ok, steps: [...steps, imageStep(asked)] }, io.isUtf8));
  return ok ? 0 : 1;
}

function imageStep({ spec }: PlanServiceRequest) {
  const { image, pullPolicy } = spec.task.container;
  const [name, digest] = image.split('@');
  const text =
    digest !== undefined
      ? `${name} is pulled as ${digest}`
      : pullPolicy === 'never'
        ? `${name} is never pulled: it has to be on the nodes`
        : `${name} is not pinned to what its registry has: each node takes what it has or gets`;
  return { ok: true, subject: 'image', text, remedy: '', depth: 0 };
}
