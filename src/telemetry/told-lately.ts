/**
 * Remembers what was told, so that a caller who repeats himself does not fill the log.
 *
 * The number of things remembered is bounded; while it is full of recent ones, new ones count as told: a flood is what
 * this is for.
 */

export interface ToldLately {
  /** Tells whether `text` was not told within the interval, and takes it as told now. */
  isNews(text: string): boolean
}

/** Makes an empty memory. @param monotonicMs a clock that does not jump. */
export function createToldLately(monotonicMs: () => number, intervalMs: number, maxTexts: number): ToldLately {
  /** When each was told; the oldest comes first, since each text is put at the end when it is told. */
  const toldAtMs = new Map<string, number>()
  return {
    isNews(text) {
      const now = monotonicMs()
      for (const [old, atMs] of toldAtMs) {
        if (now - atMs < intervalMs) break
        toldAtMs.delete(old)
      }
      if (toldAtMs.has(text) || toldAtMs.size >= maxTexts) return false
      toldAtMs.set(text, now)
      return true
    },
  }
}
