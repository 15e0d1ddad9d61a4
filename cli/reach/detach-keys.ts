// The keys that leave a command without ending it. Pure.

export const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q';

/** The bytes of "ctrl-p,ctrl-q". Throws an Error that says what is wrong. */
export function parseDetachKeys(text: string): readonly number[] {
  return text.split(',').map((key) => {
    if (key.length === 1) return key.charCodeAt(0);
    const letter = /^ctrl-([a-z@[\\\]^_])$/i.exec(key)?.[1];
    if (letter === undefined)
      throw new Error(`must be keys such as "a" or "ctrl-p", separated by commas; "${key}" is none`);
    return letter.toUpperCase().charCodeAt(0) & 0x1f;
  });
}

/** Looks for the keys in what is typed. Keys that may begin them are held back until the next one. */
export class DetachKeys {
  readonly #keys: readonly number[];
  #matched = 0;

  constructor(keys: readonly number[]) {
    this.#keys = keys;
  }

  /** What goes on to the command, and whether the keys were all typed. */
  filter(typed: Uint8Array): { readonly data: Uint8Array; readonly isDetached: boolean } {
    const passed: number[] = [];
    for (const byte of typed) {
      if (byte !== this.#keys[this.#matched]) {
        passed.push(...this.#keys.slice(0, this.#matched));
        this.#matched = 0;
      }
      if (byte === this.#keys[this.#matched]) this.#matched += 1;
      else passed.push(byte);
      if (this.#matched > 0 && this.#matched === this.#keys.length)
        return { data: Uint8Array.from(passed), isDetached: true };
    }
    return { data: Uint8Array.from(passed), isDetached: false };
  }
}
