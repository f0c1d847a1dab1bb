/** Long work in short pieces, so that no request waits for it. */

/**
 * Makes a function to call between two pieces of work: when those since the event loop had its turn took `maxMs`, it
 * returns a promise of the next turn, otherwise nothing to wait for.
 */
export function createTurns(maxMs = 1): () => Promise<void> | undefined {
  let startMs = performance.now()
  return () => {
    if (performance.now() - startMs < maxMs) return undefined
    return new Promise((resolve) =>
      setImmediate(() => {
        startMs = performance.now()
        resolve()
      }),
    )
  }
}

/** Hands on `pieces`, each made when it is its turn. */
export async function* inTurns<Piece>(pieces: Iterable<Piece>): AsyncGenerator<Piece> {
  const turn = createTurns()
  for (const piece of pieces) {
    yield piece
    await turn()
  }
}
