/**
 * Numbers in the text format that Prometheus and its relatives read.
 *
 * Names end in their unit, in base units, and counters in `_total`; labels have few values, known beforehand.
 * Source: Prometheus documentation, "Exposition formats" and "Metric and label naming".
 */

/** One number, and which of its family it is. */
export interface Sample {
  readonly labels?: Readonly<Record<string, string>>
  readonly value: number
}

/** All that one name stands for. */
export type Metric =
  | {
      readonly name: string
      readonly help: string
      readonly type: 'counter' | 'gauge'
      readonly samples: readonly Sample[]
    }
  | {
      readonly name: string
      readonly help: string
      readonly type: 'histogram'
      readonly series: readonly HistogramSeries[]
    }

export interface HistogramSeries {
  readonly labels?: Readonly<Record<string, string>>
  readonly histogram: Histogram
}

/** Counts observations by size. `observe` is for hot paths: it allocates nothing. */
export class Histogram {
  /** Upper bounds, ascending; one more bucket is without bound. */
  readonly bounds: readonly number[]
  /** Observations of each bucket alone. */
  readonly counts: Float64Array
  sum = 0

  constructor(bounds: readonly number[]) {
    this.bounds = bounds
    this.counts = new Float64Array(bounds.length + 1)
  }

  observe(value: number): void {
    const { bounds, counts } = this
    let at = 0
    while (at < bounds.length && value > (bounds[at] as number)) at++
    counts[at] = (counts[at] as number) + 1
    this.sum += value
  }
}

/** Makes a family of one gauge; `undefined` leaves it without a sample: nothing is known. */
export function gauge(name: string, help: string, value: number | undefined): Metric {
  return { name, help, type: 'gauge', samples: value === undefined ? [] : [{ value }] }
}

/** Makes a family of one counter. */
export function counter(name: string, help: string, value: number): Metric {
  return { name, help, type: 'counter', samples: [{ value }] }
}

/** Makes a family with one sample for each value of one label. */
export function byLabel(
  type: 'counter' | 'gauge',
  name: string,
  help: string,
  label: string,
  values: Readonly<Record<string, number>>,
): Metric {
  const samples = Object.entries(values).map(([each, value]) => ({ labels: { [label]: each }, value }))
  return { name, help, type, samples }
}

/** Renders a page. Families without a sample are left out. */
export function renderMetrics(metrics: readonly Metric[]): string {
  let page = ''
  for (const metric of metrics) {
    const lines = metric.type === 'histogram' ? metric.series.flatMap((each) => renderHistogram(metric.name, each)) : []
    if (metric.type !== 'histogram')
      for (const { labels, value } of metric.samples) lines.push(renderSample(metric.name, labels, value))
    if (lines.length === 0) continue
    page += `# HELP ${metric.name} ${escapeHelp(metric.help)}\n# TYPE ${metric.name} ${metric.type}\n${lines.join('')}`
  }
  return page
}

function renderHistogram(name: string, { labels, histogram }: HistogramSeries): string[] {
  const lines: string[] = []
  let count = 0
  histogram.counts.forEach((own, index) => {
    count += own
    const bound = histogram.bounds[index]
    lines.push(renderSample(`${name}_bucket`, { ...labels, le: bound === undefined ? '+Inf' : String(bound) }, count))
  })
  lines.push(renderSample(`${name}_sum`, labels, histogram.sum), renderSample(`${name}_count`, labels, count))
  return lines
}

function renderSample(name: string, labels: Readonly<Record<string, string>> | undefined, value: number): string {
  const pairs = Object.entries(labels ?? {}).map(([label, text]) => `${label}="${escapeLabel(text)}"`)
  const braces = pairs.length === 0 ? '' : `{${pairs.join(',')}}`
  return `${name}${braces} ${renderNumber(value)}\n`
}

function renderNumber(value: number): string {
  if (Number.isNaN(value)) return 'NaN'
  return Number.isFinite(value) ? String(value) : value > 0 ? '+Inf' : '-Inf'
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"')
}
