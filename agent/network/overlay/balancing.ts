// Which slots of the kernel's map a service's backends take. New connections go to a random slot.

/** A chain for each: the kernel takes a random number below a constant only. */
const EXACT_CLASS_MAX = 64;
const LARGE_CLASSES = [384, 512, 768, 1024, 1536, 2048, 3072, 4096];
const LARGE_CLASS_MAX = 4096;
/** With so many slots per backend at least, none gets a quarter more than another; as far as there are classes. */
const SLOTS_PER_BACKEND = 4;

/** Who gets the new connections of a name, as the kernel has it. */
export interface Balance {
  readonly chain: string;
  /** The backend of each slot. */
  readonly slots: readonly string[];
}

export interface BalanceChain {
  readonly name: string;
  readonly slots: number;
}

/** What a name without backends goes to. */
export const REFUSE_CHAIN = 'refuse';

/** The chains that names with backends go to. */
export const balanceChains: readonly BalanceChain[] = [
  ...Array.from({ length: EXACT_CLASS_MAX }, (_, index) => index + 1),
  ...LARGE_CLASSES,
].map((slots) => ({ name: `n${slots}`, slots }));

const slotsByChain = new Map([
  [REFUSE_CHAIN, 0],
  ...balanceChains.map(({ name, slots }) => [name, slots] as const),
]);

/** How many slots a name of this chain has; undefined when there is no such chain. */
export function chainSlots(chain: string): number | undefined {
  return slotsByChain.get(chain);
}

/** `previous` is what there is until now. */
export function planBalance(backends: readonly string[], previous?: Balance): Balance {
  const slots = planSlots(backends, previous?.slots);
  return { chain: slots.length === 0 ? REFUSE_CHAIN : `n${slots.length}`, slots };
}

export function isSameBalance(one: Balance | undefined, other: Balance | undefined): boolean {
  return (
    one?.chain === other?.chain &&
    one?.slots.length === other?.slots.length &&
    (one?.slots.every((backend, slot) => backend === other?.slots[slot]) ?? true)
  );
}

/** The backend of each slot; few slots change when few backends do. `previous` are the slots until now. */
function planSlots(backends: readonly string[], previous: readonly string[] = []): string[] {
  const order = keepPlaces(new Set(backends), previous);
  const size = slotCount(order.length);
  return Array.from({ length: size }, (_, slot) => order[slot % order.length]!);
}

function slotCount(backends: number): number {
  if (backends <= EXACT_CLASS_MAX) return backends;
  return LARGE_CLASSES.find((size) => size >= backends * SLOTS_PER_BACKEND) ?? LARGE_CLASS_MAX;
}

/** The wanted ones: who has a place keeps it, newcomers and then the last take the places that became free. */
function keepPlaces(wanted: ReadonlySet<string>, previous: readonly string[]): string[] {
  const places: (string | undefined)[] = [...new Set(previous)].map((backend) =>
    wanted.has(backend) ? backend : undefined,
  );
  const kept = new Set(places);
  const newcomers = [...wanted].filter((backend) => !kept.has(backend));
  const order: string[] = [];
  for (let place = 0; place < places.length; place++) {
    let backend = places[place] ?? newcomers.shift();
    while (backend === undefined && places.length > place + 1) backend = places.pop();
    if (backend !== undefined) order.push(backend);
  }
  return [...order, ...newcomers];
}
