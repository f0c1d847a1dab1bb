/**
 * Whether the agent is ready, for those who wait at boot: three flags, a moment, two tag files.
 *
 * Provisioning is finished when redirector, key and listener are all ready, or when time is up; then the files say how
 * it went. A later success overwrites an earlier failure.
 */

import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { isoMs } from '../base/dates.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/private-file.ts'
import type { SerialConsole } from '../telemetry/serial-console.ts'
import { escapeXml } from '../telemetry/xml.ts'

export type ReadyFlag = 'redirector' | 'keyLatch' | 'listener'

export interface ProvisioningOptions {
  /** Directory of the tag files, private to root. */
  readonly directory: string
  readonly clock: Clock
  readonly log: Log
  readonly console: SerialConsole
  /** The current status message of the part behind a flag. */
  readonly message: (flag: ReadyFlag) => string
}

export interface Provisioning {
  /** Removes the tag files of an earlier run and starts the time-out. New ones are written after that. @returns its end */
  start(): Promise<void>
  /** Sets or clears a flag. When all are set, provisioning is declared finished, again if it was before. */
  set(flag: ReadyFlag, isReady: boolean): void
  /** Starts over with the key: the moment is forgotten, and a time-out that had ended runs anew. */
  reset(): void
  /** Answers a query with the tick of the one who asks, in nanoseconds since the epoch. */
  query(tick: bigint, isLatched: boolean): { readonly finished: boolean; readonly errorMessage: string }
  /** Resolves when all flags were set for the first time. */
  readonly finished: Promise<void>
  /** Ends the time-out and waits for files being written. */
  stop(): Promise<void>
}

/** A little before the 120 s that boot tools wait, so that they see the reason rather than their own time-out. */
const TIMEOUT_MS = 115_000

const LINES: readonly (readonly [flag: ReadyFlag, name: string])[] = [
  ['redirector', 'ebpfProgramStatus'],
  ['keyLatch', 'keyLatchStatus'],
  ['listener', 'proxyListenerStatus'],
]

/** What a failure is about, in telemetry. */
const ORIGIN = { task: 'write_provision_state', operation: 'provision' } as const

/** Makes the state with no flag set. */
export function createProvisioning(options: ProvisioningOptions): Provisioning {
  const { directory, clock, log, console } = options
  const ready: Record<ReadyFlag, boolean> = { redirector: false, keyLatch: false, listener: false }
  /** 0 while not finished. */
  let finishedTick = 0n
  let timer: AbortController | undefined
  let writing: Promise<void> = Promise.resolve()
  let toldText: string | undefined
  let areTagsWritten = true

  const { promise: finished, resolve: resolveFinished } = Promise.withResolvers<void>()
  const isAllReady = () => LINES.every(([flag]) => ready[flag])
  const errorText = () =>
    LINES.filter(([flag]) => !ready[flag])
      .map(([flag, name]) => `${name} - ${options.message(flag)}\r\n`)
      .join('')

  const declareFinished = () => {
    finishedTick = endOfThisMillisecond(clock.nowMs())
    const text = errorText()
    // Declared again without news, as each good poll does: the moment counts, the disk and the log are left alone.
    if (text === toldText && areTagsWritten) return
    if (text !== toldText) tell(text)
    toldText = text
    writing = writing.then(() => writeTags(text))
  }
  const tell = (text: string) => {
    if (text === '') {
      console('Provision finished successfully')
      log.info('Provision finished successfully')
      return
    }
    const lines = text.trimEnd().split('\r\n')
    for (const line of lines) console(line)
    log.write('Error', `Provision ended with errors: ${lines.join('; ')}`, ORIGIN)
  }
  /** Writes both files; a failure is told once, and tried again with the next declaration. */
  const writeTags = async (text: string) => {
    const wereWritten = areTagsWritten
    areTagsWritten = true
    for (const [name, content] of [
      ['provisioned.tag', isoMs(clock.nowMs())],
      ['status.tag', escapeXml(text)],
    ] as const) {
      try {
        await replaceFile(join(directory, name), content, { mode: 0o600 })
      } catch (error) {
        areTagsWritten = false
        if (wereWritten) log.error(`Cannot write tag files: ${describeError(error)}`)
      }
    }
  }
  const removeTags = async () => {
    for (const name of ['provisioned.tag', 'status.tag', 'status.tag.tmp']) {
      await unlink(join(directory, name)).catch(() => undefined)
    }
  }
  const startTimeout = () => {
    timer?.abort()
    const current = new AbortController()
    timer = current
    void clock.sleep(TIMEOUT_MS, current.signal).then(() => {
      if (!current.signal.aborted && !isAllReady()) declareFinished()
    })
  }

  return {
    start() {
      startTimeout()
      writing = removeTags()
      return writing
    },
    set(flag, isReady) {
      const wasReady = ready[flag]
      ready[flag] = isReady
      if (isReady && isAllReady() && (!wasReady || finishedTick === 0n || flag === 'keyLatch')) {
        timer?.abort()
        declareFinished()
        resolveFinished()
      }
    },
    finished,
    reset() {
      ready.keyLatch = false
      // A time-out that is running goes on: who asks again and again must not put the end off.
      if (finishedTick === 0n) return
      finishedTick = 0n
      toldText = undefined
      startTimeout()
    },
    query(tick, isLatched) {
      const finished = finishedTick > 0n && (finishedTick >= tick || isLatched)
      return { finished, errorMessage: errorText() }
    },
    async stop() {
      timer?.abort()
      await writing
    },
  }
}

/**
 * Renders the moment in nanoseconds since the epoch, by the wall clock as it is now: who asks compares with his own, and
 * the clock of a machine that boots is often set after we have started. A question asked earlier in this very
 * millisecond counts as asked before, hence its end.
 */
function endOfThisMillisecond(nowMs: number): bigint {
  return BigInt(Math.floor(nowMs)) * 1_000_000n + 999_999n
}
