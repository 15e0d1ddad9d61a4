// Numbers in places, and the place of the least: a tournament, in which a changed number plays its way up anew.

export class MinKeys {
  readonly #keys: Float64Array;
  /** Places that won: the children of i are 2 i and 2 i + 1, the last level are the places themselves. */
  readonly #winners: Int32Array;
  readonly #size: number;

  /** All are Infinity. */
  constructor(count: number) {
    this.#size = 2 ** Math.ceil(Math.log2(Math.max(count, 1)));
    this.#keys = new Float64Array(this.#size).fill(Infinity);
    this.#winners = new Int32Array(2 * this.#size);
    for (let place = 0; place < this.#size; place++) this.#winners[this.#size + place] = place;
    for (let at = this.#size - 1; at > 0; at--) this.#winners[at] = this.#winners[2 * at] as number;
  }

  /** Of the least; of several, the first. */
  get best(): number {
    return this.#size === 1 ? 0 : (this.#winners[1] as number);
  }

  key(place: number): number {
    return this.#keys[place] as number;
  }

  set(place: number, key: number): void {
    this.#keys[place] = key;
    this.#replay(place);
  }

  /** The same key and so much more. */
  raise(place: number, by: number): void {
    this.#keys[place] = this.key(place) + by;
    this.#replay(place);
  }

  #replay(place: number): void {
    const keys = this.#keys;
    const winners = this.#winners;
    for (let at = (this.#size + place) >> 1; at > 0; at >>= 1) {
      const left = winners[2 * at] as number;
      const right = winners[2 * at + 1] as number;
      winners[at] = (keys[right] as number) < (keys[left] as number) ? right : left;
    }
  }
}
