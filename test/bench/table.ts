/** Figures as a table for people, and as a line of JSON for programs. */

export type Cell = string | number

/** Writes rows of equal members as columns: words to the left, numbers to the right. */
export function renderTable(rows: readonly Readonly<Record<string, Cell>>[]): string {
  const names = Object.keys(rows[0] ?? {})
  const cells = [names, ...rows.map((row) => names.map((name) => row[name] ?? ''))]
  const widths = names.map((_, column) => Math.max(...cells.map((line) => String(line[column]).length)))
  const isWord = names.map((name) => rows.every((row) => typeof row[name] === 'string'))
  const line = (values: readonly Cell[]) =>
    values
      .map((value, i) => (isWord[i] ? String(value).padEnd(widths[i] ?? 0) : String(value).padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd()
  return `${cells.map(line).join('\n')}\n`
}

/** The middle one, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const half = sorted.length / 2
  return ((sorted[Math.floor(half)] ?? Number.NaN) + (sorted[Math.ceil(half) - 1] ?? Number.NaN)) / 2
}

/** Rounds to `digits` significant digits, so that no figure claims more than was measured. */
export function round(value: number, digits = 3): number {
  return Number(value.toPrecision(digits))
}
