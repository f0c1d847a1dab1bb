/**
 * A process in the lab that says over raw sockets what it is told: `node wire-client.ts`, a list of `Conversation` as JSON on
 * standard input, the list of `Outcome` as JSON on standard output. All of them at once, each on a connection of its own.
 */

import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export interface Conversation {
  readonly to: { readonly host: string; readonly port: number }
  /** One after the other; after the last one, the end of the connection is waited for as long as `patienceMs`. */
  readonly steps: readonly ClientStep[]
  readonly patienceMs: number
}

/** Text is latin1. */
export type ClientStep =
  | { readonly write: string; readonly times?: number }
  | { readonly pauseMs: number }
  /** Wait until this was received, or the connection has ended. */
  | { readonly await: string }
  /** Read nothing for so long. */
  | { readonly deafMs: number }
  | { readonly end: 'half' | 'reset' }

export interface Outcome {
  readonly received: string
  /** `open` when it has not ended. */
  readonly end: string
  readonly tookMs: number
}

async function hold({ to, steps, patienceMs }: Conversation): Promise<Outcome> {
  const startMs = performance.now()
  const socket = connect({ ...to, noDelay: true, allowHalfOpen: true })
  let received = ''
  let end = 'open'
  let wake: () => void = () => undefined
  const close = (how: string) => {
    if (end === 'open') end = how
    wake()
  }
  socket.on('data', (bytes) => {
    received += bytes.toString('latin1')
    wake()
  })
  socket.on('end', () => close('closed'))
  socket.on('error', (error: NodeJS.ErrnoException) => close(error.code ?? error.message))
  socket.on('close', () => close('closed'))
  const until = async (isDone: () => boolean) => {
    const endMs = performance.now() + patienceMs
    while (!isDone() && end === 'open' && performance.now() < endMs) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, 200)
      wake = resolve
      await promise
      clearTimeout(timer)
    }
  }
  for (const step of steps) {
    if ('write' in step) {
      for (let left = step.times ?? 1; left > 0 && !socket.destroyed; left--) {
        if (socket.write(step.write, 'latin1')) continue
        await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), until(() => false)])
      }
    } else if ('pauseMs' in step) await sleep(step.pauseMs)
    else if ('await' in step) await until(() => received.includes(step.await))
    else if ('deafMs' in step) {
      socket.pause()
      await sleep(step.deafMs)
      socket.resume()
    } else if (step.end === 'half') socket.end()
    else socket.resetAndDestroy()
  }
  await until(() => false)
  socket.destroy()
  return { received, end, tookMs: performance.now() - startMs }
}

if (import.meta.main) {
  let text = ''
  for await (const chunk of process.stdin.setEncoding('utf8')) text += chunk
  const outcomes = await Promise.all((JSON.parse(text) as Conversation[]).map(hold))
  process.stdout.write(JSON.stringify(outcomes))
}
