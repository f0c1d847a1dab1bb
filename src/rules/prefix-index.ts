/**
 * Finds, among many texts, those that another text begins with.
 *
 *   sorted    /a   /a/b   /a/b/c   /a/x   /b          parent: the longest other text that this one begins with
 *   parent    -    /a     /a/b     /a     -
 *   find      /a/b/d: the last one not after it is /a/b/c; up to the parents until one is no longer than what the two have in
 *             common, here /a/b; that one and its parents are the answer
 *
 * Whatever begins the text and stands before it in the order begins all that stands between the two as well, so no other text
 * can be an answer. The work is a few comparisons and one step for each answer, however many texts there are.
 */
export class PrefixIndex<Entry> {
  /** Distinct, by UTF-16 code unit, as texts are compared. */
  readonly #texts: readonly string[]
  /** By text, each list in the order given. */
  readonly #entries: readonly (readonly Entry[])[]
  /** -1: none. */
  readonly #parents: Int32Array

  constructor(entries: Iterable<readonly [text: string, entry: Entry]>) {
    const byText = new Map<string, Entry[]>()
    for (const [text, entry] of entries) byText.getOrInsertComputed(text, () => []).push(entry)
    this.#texts = [...byText.keys()].sort()
    this.#entries = this.#texts.map((text) => byText.get(text)!)
    this.#parents = findParents(this.#texts)
  }

  /** Lists the entries of all texts that `text` begins with: the shortest text first, entries of one text in the order given. */
  find(text: string): readonly Entry[] {
    const near = this.#findLastNotAfter(text)
    if (near === -1) return NONE
    const common = countCommon(this.#texts[near]!, text)
    let at = near
    while (at !== -1 && this.#texts[at]!.length > common) at = this.#parents[at]!
    return this.#collect(at)
  }

  #collect(at: number): readonly Entry[] {
    if (at === -1) return NONE
    if (this.#parents[at] === -1) return this.#entries[at]!
    const chain: (readonly Entry[])[] = []
    for (let up = at; up !== -1; up = this.#parents[up]!) chain.push(this.#entries[up]!)
    const found: Entry[] = []
    for (let i = chain.length - 1; i >= 0; i--) {
      for (const entry of chain[i]!) found.push(entry)
    }
    return found
  }

  #findLastNotAfter(text: string): number {
    let low = -1
    let high = this.#texts.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#texts[middle]! <= text) low = middle
      else high = middle - 1
    }
    return low
  }
}

const NONE: readonly never[] = []

/** In the sorted order all that begins with a text follows it at once, so the way up from the last one leads to the parent. */
function findParents(texts: readonly string[]): Int32Array {
  const parents = new Int32Array(texts.length)
  for (let at = 0; at < texts.length; at++) {
    let parent = at - 1
    while (parent !== -1 && !texts[at]!.startsWith(texts[parent]!)) parent = parents[parent]!
    parents[at] = parent
  }
  return parents
}

/** Counts the code units that two texts have in common from their beginning. */
function countCommon(a: string, b: string): number {
  const end = Math.min(a.length, b.length)
  // Slices are compared as memory, which is many times as quick as one character after the other.
  if (a.slice(0, end) === b.slice(0, end)) return end
  let at = 0
  while (at < end && a.charCodeAt(at) === b.charCodeAt(at)) at += 1
  return at
}
