import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Outcome, Verdict } from '../../src/rules/decide.ts'
import { byLabel, counter, gauge, Histogram, renderMetrics } from '../../src/telemetry/metrics.ts'
import { createRequestMetrics } from '../../src/telemetry/request-metrics.ts'
import { lintMetrics } from './lint-metrics.ts'

const verdict = (outcome: Outcome, kind: 'no-rules' | 'elevated-only'): Verdict => ({
  outcome,
  decidedBy: 'endpoint',
  reason: { kind },
})

test('renderMetrics() writes help, type and samples, and leaves families without samples out', () => {
  const page = renderMetrics([
    gauge('x_bytes', 'One\\two\nthree', 1.5),
    gauge('y_bytes', 'Nothing is known.', undefined),
    byLabel('counter', 'z_total', 'By name.', 'name', { 'a"b\\c\nd': 2 }),
  ])
  assert.equal(
    page,
    [
      '# HELP x_bytes One\\\\two\\nthree',
      '# TYPE x_bytes gauge',
      'x_bytes 1.5',
      '# HELP z_total By name.',
      '# TYPE z_total counter',
      'z_total{name="a\\"b\\\\c\\nd"} 2',
      '',
    ].join('\n'),
  )
  assert.deepEqual(lintMetrics(page), [])
})

test('Histogram counts a value on a bound below it, and all in +Inf', () => {
  const histogram = new Histogram([0.1, 1])
  for (const value of [0.1, 0.5, 7]) histogram.observe(value)
  const page = renderMetrics([
    { name: 'd_seconds', help: 'Durations.', type: 'histogram', series: [{ labels: { to: 'a' }, histogram }] },
  ])
  const buckets = page.split('\n').filter((line) => line.startsWith('d_seconds'))
  assert.deepEqual(buckets, [
    'd_seconds_bucket{to="a",le="0.1"} 1',
    'd_seconds_bucket{to="a",le="1"} 2',
    'd_seconds_bucket{to="a",le="+Inf"} 3',
    'd_seconds_sum{to="a"} 7.6',
    'd_seconds_count{to="a"} 3',
  ])
  assert.deepEqual(lintMetrics(page), [])
})

test('createRequestMetrics() counts by labels that callers cannot make up', () => {
  const metrics = createRequestMetrics()
  metrics.decided('imds', verdict('ok', 'no-rules'), true)
  metrics.decided('imds', verdict('ok', 'no-rules'), false)
  metrics.decided('hostga', verdict('forbidden', 'elevated-only'), true)
  metrics.answered('imds', 200, 0.003)
  metrics.answered('none', 499, undefined)
  metrics.answered('local', 999, 0)
  metrics.hostAnswered('wireserver', 40)
  metrics.notAttributed('no_record')
  const page = renderMetrics(metrics.metrics())
  for (const line of [
    'azure_proxy_agent_decisions_total{endpoint="imds",verdict="ok",reason="no-rules"} 2',
    'azure_proxy_agent_decisions_total{endpoint="hostga",verdict="forbidden",reason="elevated-only"} 1',
    'azure_proxy_agent_responses_total{endpoint="imds",code="2xx"} 1',
    'azure_proxy_agent_responses_total{endpoint="none",code="4xx"} 1',
    'azure_proxy_agent_responses_total{endpoint="local",code="5xx"} 1',
    'azure_proxy_agent_request_duration_seconds_bucket{endpoint="imds",le="0.0025"} 0',
    'azure_proxy_agent_request_duration_seconds_bucket{endpoint="imds",le="0.005"} 1',
    'azure_proxy_agent_request_duration_seconds_count{endpoint="none"} 0',
    'azure_proxy_agent_host_response_duration_seconds_bucket{endpoint="wireserver",le="30"} 0',
    'azure_proxy_agent_host_response_duration_seconds_bucket{endpoint="wireserver",le="120"} 1',
    'azure_proxy_agent_attribution_failures_total{reason="no_record"} 1',
    'azure_proxy_agent_attribution_failures_total{reason="error"} 0',
    'azure_proxy_agent_unknown_executables_total 1',
  ])
    assert.ok(page.split('\n').includes(line), `${line}\nis not in\n${page}`)
  assert.deepEqual(lintMetrics(page), [])
  assert.deepEqual(metrics.outcomes(), { ok: 2, audit: 0, forbidden: 1 })
  assert.equal(metrics.attributionFailures(), 1)
})

const FAULTY: readonly (readonly [fault: RegExp, page: string])[] = [
  [/no name/, renderMetrics([gauge('Bad-Name', 'x', 1)])],
  [/has no HELP/, '# TYPE a_bytes gauge\na_bytes 1\n'],
  [/no TYPE/, '# HELP a_bytes x\na_bytes 1\n'],
  [/end in _total/, renderMetrics([counter('a_count', 'x', 1)])],
  [/end in _total/, renderMetrics([gauge('a_total', 'x', 1)])],
  [/base units/, renderMetrics([gauge('a_milliseconds', 'x', 1)])],
  [/there twice/, '# HELP a x\n# TYPE a gauge\na{b="c"} 1\na{b="c"} 2\n'],
  [/two blocks/, renderMetrics([gauge('a', 'x', 1), gauge('a', 'x', 1)])],
  [/labels cannot be read/, '# HELP a x\n# TYPE a gauge\na{b="c"d"} 1\n'],
  [/not a number/, '# HELP a x\n# TYPE a gauge\na one\n'],
  [/not a sample/, '# HELP a x\n# TYPE a gauge\na 1\n\n'],
  [
    /do not ascend/,
    '# HELP a_seconds x\n# TYPE a_seconds histogram\na_seconds_bucket{le="1"} 2\na_seconds_bucket{le="+Inf"} 1\n',
  ],
]
for (const [fault, page] of FAULTY) {
  test(`lintMetrics() finds ${fault.source}`, () => assert.match(lintMetrics(page).join('\n'), fault))
}
