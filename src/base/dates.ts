/** The date forms of files, logs and headers. All are UTC and free of the machine's locale. */

/** Renders `YYYY-MM-DDTHH:MM:SS.mmm`, always three digits and no zone: log lines, status, tag files. */
export function isoMs(epochMs: number): string {
  return new Date(epochMs).toISOString().slice(0, 23)
}

/** Renders the part of a file name that sorts by time: `YYYY-MM-DDTHH.MM.SS.mmm-<unix ns>`. */
export function fileStamp(epochMs: number, unixNs: bigint): string {
  return `${isoMs(epochMs).replaceAll(':', '.')}-${unixNs}`
}

/** Renders `Wed, 23 Apr 2025 12:00:00 GMT`, cut to whole seconds. Source: RFC 9110 section 5.6.7, IMF-fixdate. */
export function httpDate(epochMs: number): string {
  return new Date(Math.floor(epochMs / 1000) * 1000).toUTCString()
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const IMF_FIXDATE = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT$/

/**
 * Reads a date of exactly the form `httpDate` writes; the weekday must be a name but need not fit the date.
 * @returns epoch milliseconds, or `undefined` when the text is anything else, such as 31 February.
 */
export function parseHttpDate(text: string): number | undefined {
  const match = IMF_FIXDATE.exec(text)
  if (match === null) return undefined
  const [day, year, hour, minute, second] = [match[1], match[3], match[4], match[5], match[6]].map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ]
  const month = MONTHS.indexOf(match[2] as string)
  if (month === -1 || hour > 23 || minute > 59 || second > 59) return undefined
  const epochMs = Date.UTC(year, month, day, hour, minute, second)
  const date = new Date(epochMs)
  return date.getUTCDate() === day && date.getUTCMonth() === month && date.getUTCFullYear() === year
    ? epochMs
    : undefined
}
