/**
 * Remembers what was told of whom, so that a caller who repeats himself does not fill the log, and says how often he did.
 *
 * Each group, a user for instance, has room for so many texts of its own and for one that stands for all others, so that
 * nobody can use up what another needs. The number of groups is bounded as well: those without room share one.
 */

export interface ToldLately {
  /**
   * Asks whether `text` about `group` is worth telling, and takes it as told when it is.
   * @returns how often it came untold since it was told last, `undefined` when it was told within the interval
   */
  ask(group: string, text: string): number | undefined
}

export interface ToldLatelyOptions {
  readonly intervalMs: number
  readonly maxTextsPerGroup: number
  readonly maxGroups: number
}

/** What anything is told at most, about one user. */
const TOLD_LATELY_DEFAULTS: ToldLatelyOptions = { intervalMs: 15 * 60 * 1000, maxTextsPerGroup: 20, maxGroups: 200 }

/** Stands for groups and texts without room. Neither a user name nor a line of ours is empty. */
const OTHERS = ''

interface Told {
  toldAtMs: number
  untold: number
}

/** Makes an empty memory. @param monotonicMs a clock that does not jump. */
export function createToldLately(monotonicMs: () => number, options = TOLD_LATELY_DEFAULTS): ToldLately {
  const { intervalMs, maxTextsPerGroup, maxGroups } = options
  const groups = new Map<string, Map<string, Told>>()

  const room = (group: string, now: number): Map<string, Told> => {
    const known = groups.get(group)
    if (known !== undefined) return known
    if (groups.size >= maxGroups) forgetSilentGroups(now)
    const name = groups.size < maxGroups ? group : OTHERS
    const texts = groups.get(name) ?? new Map<string, Told>()
    groups.set(name, texts)
    return texts
  }
  const forgetSilentGroups = (now: number) => {
    for (const [group, texts] of groups) {
      forgetOld(texts, now)
      if (texts.size === 0) groups.delete(group)
    }
  }
  const forgetOld = (texts: Map<string, Told>, now: number) => {
    for (const [text, { toldAtMs }] of texts) if (now - toldAtMs >= intervalMs) texts.delete(text)
  }
  return {
    ask(group, text) {
      const now = monotonicMs()
      const texts = room(group, now)
      if (!texts.has(text) && texts.size >= maxTextsPerGroup) forgetOld(texts, now)
      const name = texts.has(text) || texts.size < maxTextsPerGroup ? text : OTHERS
      const told = texts.get(name)
      if (told === undefined) {
        texts.set(name, { toldAtMs: now, untold: 0 })
        return 0
      }
      if (now - told.toldAtMs < intervalMs) {
        told.untold++
        return undefined
      }
      const { untold } = told
      texts.set(name, { toldAtMs: now, untold: 0 })
      return untold
    },
  }
}
