/**
 * Finds what is wrong with a page of metrics, as the linters of monitoring systems would: the rules of the text format, and
 * the conventions of names.
 */

const NAME = /^[a-z][a-z0-9_]*$/
const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/
const TYPES = new Set(['counter', 'gauge', 'histogram'])

/** Units that are not base units, and what to use instead. */
const ODD_UNITS = /_(milliseconds|ms|minutes|hours|days|kilobytes|kb|megabytes|mb|percent)(_|$)/

interface Family {
  help?: string
  type?: string
  readonly series: Map<string, number>
}

/** @returns one sentence for each fault */
export function lintMetrics(page: string): string[] {
  const faults: string[] = []
  const families = new Map<string, Family>()
  let current = ''
  const family = (name: string): Family => {
    const known = families.get(name) ?? { series: new Map<string, number>() }
    families.set(name, known)
    return known
  }
  if (!page.endsWith('\n')) faults.push('the last line is not ended')
  for (const line of page.split('\n').slice(0, -1)) {
    const [, word, name = '', text = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    if (word !== undefined) {
      if (word === 'HELP' && families.has(name)) faults.push(`${name} has two blocks`)
      const entry = family(name)
      if (word === 'HELP') entry.help = text
      else entry.type = text
      current = name
      continue
    }
    const match = SAMPLE.exec(line)
    if (match === null) {
      faults.push(`not a sample: ${line}`)
      continue
    }
    const [, sample = '', labels = '', value = ''] = match
    if (Number.isNaN(Number(value.replace('+Inf', 'Infinity').replace('-Inf', '-Infinity'))) && value !== 'NaN')
      faults.push(`not a number: ${line}`)
    const entry = family(current)
    const suffix = sample.slice(current.length)
    const isOfFamily =
      sample.startsWith(current) && (entry.type === 'histogram' ? /^_(bucket|sum|count)$/.test(suffix) : suffix === '')
    if (!isOfFamily) faults.push(`${sample} stands below ${current}`)
    faults.push(...lintLabels(line, labels))
    const key = `${sample}{${labels}}`
    if (entry.series.has(key)) faults.push(`${key} is there twice`)
    entry.series.set(key, Number(value.replace('+Inf', 'Infinity')))
  }
  for (const [name, entry] of families) faults.push(...lintFamily(name, entry))
  return faults
}

function lintLabels(line: string, labels: string): string[] {
  const seen = new Set<string>()
  for (let rest = labels; rest !== ''; ) {
    const match = LABEL.exec(rest)
    if (match === null) return [`labels cannot be read: ${line}`]
    if (seen.has(match[1] as string)) return [`label ${match[1]} is there twice: ${line}`]
    seen.add(match[1] as string)
    rest = rest.slice(match[0].length)
  }
  return []
}

function lintFamily(name: string, { help, type, series }: Family): string[] {
  const faults: string[] = []
  if (!NAME.test(name)) faults.push(`${name} is no name for a metric`)
  if (!help) faults.push(`${name} has no HELP`)
  if (!TYPES.has(type ?? '')) faults.push(`${name} has no TYPE that is known`)
  if (series.size === 0) faults.push(`${name} has no samples`)
  if ((type === 'counter') !== name.endsWith('_total')) faults.push(`${name}: counters, and they alone, end in _total`)
  if (ODD_UNITS.test(name)) faults.push(`${name} is not in base units`)
  if (type === 'histogram' && !/_(seconds|bytes)$/.test(name)) faults.push(`${name} has no unit`)
  if (type === 'histogram') faults.push(...lintHistogram(name, series))
  return faults
}

/** Buckets count up, the last one is +Inf, and it holds as many as were counted. */
function lintHistogram(name: string, series: ReadonlyMap<string, number>): string[] {
  const faults: string[] = []
  const groups = new Map<string, [bound: number, count: number][]>()
  for (const [key, count] of series) {
    const match = /_bucket\{(.*?),?le="([^"]+)"\}$/.exec(key)
    if (match === null) continue
    const [, labels = '', bound = ''] = match
    const list = groups.get(labels) ?? []
    list.push([Number(bound.replace('+Inf', 'Infinity')), count])
    groups.set(labels, list)
  }
  if (groups.size === 0) faults.push(`${name} has no buckets`)
  for (const [labels, buckets] of groups) {
    const isAscending = buckets.every(([bound, count], i) => {
      const [before, less] = buckets[i - 1] ?? [Number.NEGATIVE_INFINITY, 0]
      return bound > before && count >= less
    })
    if (!isAscending) faults.push(`the buckets of ${name}{${labels}} do not ascend`)
    const [bound, count] = buckets.at(-1) as [number, number]
    if (bound !== Number.POSITIVE_INFINITY) faults.push(`${name}{${labels}} has no bucket +Inf`)
    if (series.get(`${name}_count{${labels}}`) !== count) faults.push(`${name}{${labels}} counts another number`)
    if (!series.has(`${name}_sum{${labels}}`)) faults.push(`${name}{${labels}} has no sum`)
  }
  return faults
}
