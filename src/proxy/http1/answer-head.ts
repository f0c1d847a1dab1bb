/** Writes the head of an answer. */

import { STATUS_CODES } from 'node:http'
import { httpDate } from '../../base/dates.ts'
import type { Fields } from './fields.ts'

/**
 * Renders status line, headers and empty line. A date is added where there is none.
 * Source: RFC 9110 section 6.6.1 for the date.
 */
export function renderAnswerHead(status: number, headers: Fields): string {
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`
  let hasDate = false
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string
    if (name === 'date') hasDate = true
    head += `${name}: ${headers[i + 1]}\r\n`
  }
  return hasDate ? `${head}\r\n` : `${head}date: ${dateNow()}\r\n\r\n`
}

let cachedSecond = 0
let cachedDate = ''

function dateNow(): string {
  const second = Math.floor(Date.now() / 1000)
  if (second !== cachedSecond) {
    cachedSecond = second
    cachedDate = httpDate(second * 1000)
  }
  return cachedDate
}
