/** Events that wait, the oldest first, as many as there is room for. */

import type { TelemetryEvent } from './event.ts'

const CAPACITY = 1000

export class EventQueue {
  readonly capacity: number
  #events: TelemetryEvent[] = []

  constructor(capacity = CAPACITY) {
    this.capacity = capacity
  }

  get size(): number {
    return this.#events.length
  }

  /** Adds an event. @returns false when there is no room: it is not kept */
  push(event: TelemetryEvent): boolean {
    if (this.#events.length >= this.capacity) return false
    this.#events.push(event)
    return true
  }

  /** The event that waits longest. */
  first(): TelemetryEvent | undefined {
    return this.#events[0]
  }

  /** Takes the `count` events that wait longest, or all. */
  take(count = this.#events.length): TelemetryEvent[] {
    return this.#events.splice(0, count)
  }

  /** Puts events that were taken back to the front, room or not: they were within it. */
  restore(events: readonly TelemetryEvent[]): void {
    this.#events = [...events, ...this.#events]
  }
}
