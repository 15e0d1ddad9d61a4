// What does not work on this node at the moment, for its status: one sentence a subject.

export class Problems {
  readonly #texts = new Map<string, string>();

  /** An empty text: it works again. */
  set(subject: string, text: string): void {
    if (text === '') this.#texts.delete(subject);
    else this.#texts.set(subject, text);
  }

  has(subject: string): boolean {
    return this.#texts.has(subject);
  }

  clear(): void {
    this.#texts.clear();
  }

  /** Empty when there is none. */
  get text(): string {
    return [...this.#texts.values()].join('; ');
  }
}
