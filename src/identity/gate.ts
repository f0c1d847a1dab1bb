/**
 * Lets slow work be done for a few at a time, so that who makes it slow is waited for by himself.
 *
 * Of one key only one work runs at a time, and of all keys only `width`; the others wait in the order they came, each
 * behind the earlier ones of its own key alone. Where too many wait already, there is no place.
 */

export interface Gate {
  /**
   * Does `work` when there is room.
   * @param key on whose account
   * @returns what it gives; `undefined` when too many wait already. Rejects as `work` does.
   */
  run<T>(key: number, work: () => Promise<T>): Promise<T | undefined>
}

interface Waiting {
  readonly key: number
  start(): void
}

/** Makes a gate. @param width how much runs at a time @param length how many may wait */
export function createGate(width: number, length: number): Gate {
  const running = new Set<number>()
  const waiting: Waiting[] = []
  const admit = () => {
    while (running.size < width) {
      const index = waiting.findIndex(({ key }) => !running.has(key))
      if (index === -1) return
      waiting.splice(index, 1)[0]?.start()
    }
  }
  return {
    async run(key, work) {
      if (running.size >= width || running.has(key)) {
        if (waiting.length >= length) return undefined
        await new Promise<void>((resolve) => {
          const start = () => {
            running.add(key)
            resolve()
          }
          waiting.push({ key, start })
        })
      } else running.add(key)
      try {
        return await work()
      } finally {
        running.delete(key)
        admit()
      }
    },
  }
}
