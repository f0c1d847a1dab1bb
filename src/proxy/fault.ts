/** The end of a request that met a fault of ours. */

import { describeError } from '../base/errors.ts'
import { INTERNAL_ERROR, sendAnswer } from './answer.ts'
import type { Exchange } from './exchange.ts'
import type { ProxyStages } from './stages.ts'

/** Tells the fault, and ends the request so that nobody can take what was written for a whole answer. */
export function failExchange(exchange: Exchange, { observer }: ProxyStages, error: unknown): void {
  observer.failed(exchange, describeError(error))
  if (exchange.turn.hasBegun) exchange.turn.break()
  else sendAnswer(exchange.turn, INTERNAL_ERROR)
}
