import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Level } from '../../src/base/log.ts'
import { claimsJson } from '../../src/identity/caller.ts'
import type { Verdict } from '../../src/rules/decide.ts'
import { describeVerdict } from '../../src/rules/describe.ts'
import { formatDivergence } from '../../src/rules/divergence.ts'
import type { ConnectionLog } from '../../src/telemetry/connection-log.ts'
import { createConnectionSummary } from '../../src/telemetry/connection-summary.ts'
import { createDenials } from '../../src/telemetry/denials.ts'
import type { ConnectionFacts, RequestFacts } from '../../src/telemetry/request-facts.ts'
import { createRequestMetrics } from '../../src/telemetry/request-metrics.ts'
import { createRequestObserver } from '../../src/telemetry/request-observer.ts'
import { makeCaller } from '../fakes/caller.ts'

const ALICE = makeCaller({ groups: ['alice', 'adm'], pid: 77, clientPort: 40112 })
const OK: Verdict = { outcome: 'ok', decidedBy: 'endpoint', reason: { kind: 'no-rules' } }
const AUDIT: Verdict = { outcome: 'audit', decidedBy: 'legacy', reason: { kind: 'default-access' }, ruleSetId: 'v7' }
const DENIED: Verdict = { ...AUDIT, outcome: 'forbidden' }
const REASON = 'no privilege matches and the default access is deny (rule set "v7", legacy matcher)'

const CONNECTION: ConnectionFacts = {
  id: 9,
  peer: { address: '127.0.0.1', port: 40112 },
  destination: { address: '169.254.169.254', port: 80 },
}
const DIRECT: ConnectionFacts = { ...CONNECTION, destination: undefined }

function observer(level: Level = 'Info') {
  const time = { ms: 1_000_000 }
  const lines: string[] = []
  const open = new Set<RequestFacts>()
  const enabled = ['Error', 'Warn', 'Info', 'Debug', 'Trace']
  const isEnabled = (wanted: Level) => enabled.indexOf(wanted) <= enabled.indexOf(level)
  const log: ConnectionLog = {
    isEnabled,
    write(request, lineLevel, message) {
      open.add(request)
      if (isEnabled(lineLevel)) lines.push(`${lineLevel} ${request.id}[${request.connection.id}] ${message}`)
    },
    writeOwn: (request, lineLevel, message) => log.write(request, lineLevel, message),
    record(summary) {
      if (isEnabled('Info')) lines.push(`Info ${JSON.stringify(summary)}`)
    },
    end: (request) => void open.delete(request),
  }
  const normal = createConnectionSummary(() => time.ms)
  const denied = createConnectionSummary(() => time.ms)
  const metrics = createRequestMetrics()
  const denials = createDenials(() => time.ms, describeVerdict)
  const options = {
    log,
    normal,
    denied,
    metrics,
    denials,
    monotonicMs: () => time.ms,
    describeVerdict,
    formatDivergence,
    claimsJson,
  }
  const counts = (list: typeof normal) =>
    list
      .read()
      .map(({ userName, address, responseStatus, count }) => `${userName} ${address} ${responseStatus} ${count}`)
  const request = (id = 12, connection = CONNECTION): RequestFacts => ({
    connection,
    id,
    method: 'GET',
    rawTarget: '/metadata/instance?api-version=2021-02-01',
    startedAtMs: time.ms,
  })
  return {
    time,
    lines,
    request,
    observer: createRequestObserver(options),
    metrics,
    denials,
    normal: () => counts(normal),
    denied: () => counts(denied),
    /** Requests with lines that were not ended: such lines never reach the file. */
    unended: () => open.size,
  }
}

test('finished() writes the summary record of the contract, member by member', () => {
  const { observer: seen, request, lines, time, normal, unended } = observer()
  const asked = request()
  time.ms += 23.4
  seen.finished(asked, ALICE, 200, '')
  const record = {
    id: 12,
    method: 'GET',
    url: '/metadata/instance?api-version=2021-02-01',
    clientIp: '127.0.0.1',
    clientPort: 40112,
    ip: '169.254.169.254',
    port: 80,
    userId: 1000,
    userName: 'alice',
    userGroups: ['alice', 'adm'],
    processFullPath: '/usr/bin/curl',
    processCmdLine: 'curl x',
    runAsElevated: false,
    responseStatus: '200 OK',
    elapsedTime: 23,
    errorDetails: '',
  }
  assert.deepEqual(lines, [`Info ${JSON.stringify(record)}`])
  assert.deepEqual(normal(), ['alice 169.254.169.254 200 OK 1'])
  assert.equal(unended(), 0)
})

test('finished() writes the record once in 15 minutes for the same caller and status', () => {
  const { observer: seen, request, lines, time, normal } = observer()
  for (let i = 0; i < 5; i++) seen.finished(request(i), ALICE, 200, '')
  assert.equal(lines.length, 1)
  seen.finished(request(6), ALICE, 404, '')
  assert.equal(lines.length, 2)
  time.ms += 900_000
  seen.finished(request(7), ALICE, 200, '')
  assert.equal(lines.length, 3)
  assert.deepEqual(normal(), ['alice 169.254.169.254 200 OK 6', 'alice 169.254.169.254 404 Not Found 1'])
})

test('finished() shows an unknown executable as an empty path', () => {
  const { observer: seen, request, lines } = observer()
  seen.finished(request(), { ...ALICE, exePath: undefined, processName: undefined }, 200, '')
  assert.match(String(lines[0]), /"processFullPath":"","processCmdLine":"curl x"/)
})

test('finished() of nobody says "empty", and "None" without a destination', () => {
  const { observer: seen, request, lines, normal, denied } = observer()
  seen.finished(request(12, DIRECT), undefined, 421, 'No remote destination_ip found in the request, return!')
  assert.match(
    String(lines[0]),
    /"ip":"None","port":0,"userId":0,"userName":"empty","userGroups":\[\],"processFullPath":"empty","processCmdLine":"empty","runAsElevated":false,"responseStatus":"421 Misdirected Request"/,
  )
  assert.deepEqual(normal(), ['empty None 421 Misdirected Request 1'])
  assert.deepEqual(denied(), [])
})

test('finished() counts missing claims among the failed authentications only', () => {
  const { observer: seen, request, normal, denied } = observer()
  seen.finished(request(), undefined, 421, 'No claims found in the request, return!', 'failed')
  assert.deepEqual(normal(), [])
  assert.deepEqual(denied(), ['empty 169.254.169.254 421 Misdirected Request 1'])
})

test('finished() cuts the detail at 4096 bytes, on a character boundary', () => {
  const { observer: seen, request, lines } = observer()
  seen.finished(request(), ALICE, 503, `x${'é'.repeat(4000)}`)
  const { errorDetails } = JSON.parse(String(lines[0]).slice('Info '.length))
  assert.equal(errorDetails, `x${'é'.repeat(2047)}`)
})

test('decided() counts a denial in both lists, and tells its reason once in 15 minutes', () => {
  const { observer: seen, request, lines, normal, denied, unended } = observer()
  seen.decided(request(1), ALICE, DENIED)
  assert.deepEqual(denied(), ['alice 169.254.169.254 403 Forbidden 1'])
  assert.deepEqual(normal(), ['alice 169.254.169.254 403 Forbidden 1'])
  assert.equal(lines.length, 3)
  assert.match(String(lines[0]), /"errorDetails":"Authorize failed"/)
  assert.equal(lines[1], `Info 1[9] Request denied: forbidden: ${REASON}`)
  const blocked = JSON.parse(String(lines[2]).slice('Info '.length))
  assert.equal(blocked.errorDetails, `Block unauthorized request: ${claimsJson(ALICE)}`)
  seen.decided(request(2), ALICE, DENIED)
  assert.equal(lines.length, 3)
  assert.deepEqual(denied(), ['alice 169.254.169.254 403 Forbidden 2'])
  assert.equal(unended(), 0)
})

test('decided() counts an audit among the failed alone, and its answer among the others', () => {
  const { observer: seen, request, lines, normal, denied } = observer()
  for (const id of [1, 2]) {
    const asked = request(id)
    seen.decided(asked, ALICE, AUDIT)
    seen.finished(asked, ALICE, 200, '')
  }
  assert.deepEqual(denied(), ['alice 169.254.169.254 403 Forbidden 2'])
  assert.deepEqual(normal(), ['alice 169.254.169.254 200 OK 2'])
  const line =
    'IMDS request /metadata/instance?api-version=2021-02-01 denied in audit mode, continue forward the request'
  assert.deepEqual(
    lines.filter((each) => each.includes('audit mode')),
    [`Info 1[9] ${line}: audit: ${REASON}`],
  )
})

test('decided() says nothing of what is allowed, but everything at Trace', () => {
  const quiet = observer()
  quiet.observer.decided(quiet.request(), ALICE, OK)
  assert.deepEqual(quiet.lines, [])
  const loud = observer('Trace')
  loud.observer.decided(loud.request(), { ...ALICE, doubt: 'the process is gone' }, OK)
  assert.deepEqual(loud.lines, [
    `Trace 12[9] Use claims: ${claimsJson(ALICE)}`,
    'Trace 12[9] The executable is unknown: the process is gone',
    'Trace 12[9] Decision: ok: the endpoint has no rules',
  ])
})

test('decided() tells a disagreement of the matchers once in 15 minutes, of a bounded number', () => {
  const { observer: seen, request, lines, time } = observer()
  const divergence = (uri: string) =>
    ({ mode: 'shadow', ruleSetId: 'v7', legacy: 'allow', canonical: 'error:CANON_PCT', uri }) as const
  for (let i = 0; i < 10; i++) seen.decided(request(12), ALICE, { ...OK, divergence: divergence('/a%zz') })
  const line = 'CANON_DIVERGENCE mode=shadow rule_set=v7 legacy=allow canon=error:CANON_PCT uri="/a%zz"'
  assert.deepEqual(lines, [`Warn 12[9] ${line}`])
  time.ms += 900_000
  seen.decided(request(13), ALICE, { ...OK, divergence: divergence('/a%zz') })
  assert.equal(lines.length, 2)
  for (let i = 0; i < 5000; i++) seen.decided(request(14), ALICE, { ...OK, divergence: divergence(`/${i}`) })
  assert.equal(lines.length, 2 + 20, 'so many of one user, and one for the others')
  seen.decided(request(15), { ...ALICE, userName: 'bob' }, { ...OK, divergence: divergence('/bob') })
  assert.match(String(lines.at(-1)), /uri="\/bob"$/, 'another user is heard')
})

test('connected() tells of direct connections once a minute for each client, and how many there were', () => {
  const { observer: seen, lines, time, unended } = observer()
  seen.connected(CONNECTION, undefined)
  assert.deepEqual(lines, [])
  seen.connected(DIRECT, 'no record')
  const first = [
    "Warn 0[9] Failed to find audit entry with client_source_port '40112' with error: no record",
    'Warn 0[9] Client 127.0.0.1:40112 may have connected to the listener directly',
  ]
  assert.deepEqual(lines, first)
  for (let i = 0; i < 10; i++) seen.connected({ ...DIRECT, id: 10 + i }, 'no record')
  assert.deepEqual(lines, first)
  seen.connected({ ...DIRECT, peer: { address: '127.0.0.2', port: 1 } }, 'no record')
  assert.equal(lines.length, 4)
  lines.length = 2
  time.ms += 60_000
  seen.connected({ ...DIRECT, id: 30 }, 'no record')
  assert.equal(
    lines[3],
    'Warn 0[30] Client 127.0.0.1:40112 may have connected to the listener directly (10 more since the last of these lines)',
  )
  assert.equal(unended(), 0)
})

test('rejected() counts what could not be read, and tells it once in 15 minutes', () => {
  const { observer: seen, lines, normal, unended } = observer()
  for (let i = 0; i < 50; i++)
    seen.rejected(CONNECTION, 400, 'ProxyListener serve_connection error: HPE_INVALID_METHOD')
  assert.deepEqual(normal(), ['empty 169.254.169.254 400 Bad Request 50'])
  assert.equal(lines.length, 2)
  assert.match(String(lines[0]), /^Info \{"id":0,"method":"","url":"",.*"elapsedTime":0,"errorDetails":"Proxy/)
  assert.equal(
    lines[1],
    'Warn 0[9] Answered 400 to 127.0.0.1:40112: ProxyListener serve_connection error: HPE_INVALID_METHOD',
  )
  assert.equal(unended(), 0)
})

test('failed() tells each fault at Error, once in 15 minutes, and counts it', () => {
  const { observer: seen, request, lines, time, normal, unended } = observer('Error')
  seen.failed(request(1), 'no rules')
  time.ms += 900_000
  seen.failed(request(2), 'no rules')
  seen.failed(request(3), 'no rules')
  seen.failed(request(4), 'no key')
  const line = 'Request failed by a fault of the agent'
  assert.deepEqual(lines, [
    `Error 1[9] ${line}: no rules`,
    `Error 2[9] ${line}: no rules`,
    `Error 4[9] ${line}: no key`,
  ])
  assert.deepEqual(normal(), ['empty 169.254.169.254 500 Internal Server Error 4'])
  assert.equal(unended(), 0)
})

test('served() summarises nothing, but lets the lines of the request out', () => {
  const { observer: seen, request, lines, normal, denied, unended } = observer()
  const asked = request()
  seen.note(asked, 'Info', 'something')
  assert.equal(unended(), 1)
  seen.served(asked, undefined, 200)
  assert.equal(unended(), 0)
  assert.deepEqual(lines, ['Info 12[9] something'])
  assert.deepEqual([...normal(), ...denied()], [])
})

test('served() complains once in 15 minutes for each user and complaint, with a count', () => {
  const { observer: seen, request, lines, time, unended } = observer()
  const direct = () => request(12, DIRECT)
  for (let i = 0; i < 100; i++) seen.served(direct(), undefined, 400, 'No Metadata header')
  seen.served(direct(), undefined, 403, 'Status refused')
  for (let i = 0; i < 100; i++) seen.served(request(), ALICE, 403, 'Status refused')
  assert.equal(unended(), 0)
  const first = [
    "Warn 12[9] Answered 400 to user 'direct': No Metadata header",
    "Warn 12[9] Answered 403 to user 'direct': Status refused",
    "Warn 12[9] Answered 403 to user 'alice': Status refused",
  ]
  assert.deepEqual(lines, first)
  time.ms += 900_000
  seen.served(direct(), undefined, 400, 'No Metadata header')
  assert.deepEqual(lines, [...first, `${first[0]} (99 more since the last of these lines)`])
})

test('served() complains every time at Debug', () => {
  const { observer: seen, request, lines } = observer('Debug')
  for (let i = 0; i < 3; i++) seen.served(request(), ALICE, 403, 'Status refused')
  assert.deepEqual(
    lines.map((line) => line.split(' ')[0]),
    ['Warn', 'Debug', 'Debug'],
  )
})

test('dismissed() counts connections that were closed unheard, and tells it once in 15 minutes', () => {
  const { observer: seen, lines, time, unended } = observer()
  const gone = { ...DIRECT, id: 5, peer: { address: '', port: 0 } }
  for (let i = 0; i < 5000; i++) seen.dismissed(gone, undefined, 'its client had left')
  seen.dismissed(CONNECTION, 'alice', 'too many')
  assert.deepEqual(lines, ['Info 0[5] its client had left', 'Info 0[9] too many'])
  time.ms += 900_000
  seen.dismissed(gone, undefined, 'its client had left')
  assert.equal(lines[2], 'Info 0[5] its client had left (4999 more since the last of these lines)')
  assert.equal(unended(), 0)
})

test('a denial is told although another user had a thousand command lines denied', () => {
  const { observer: seen, request, lines, denied } = observer()
  for (let i = 0; i < 1100; i++) seen.decided(request(i), { ...ALICE, commandLine: `python3 ${i}` }, DENIED)
  const told = lines.length
  assert.ok(told < 160, `${told} lines`)
  seen.decided(request(2000), { ...ALICE, userName: 'bob', uid: 33 }, DENIED)
  assert.equal(lines.length, told + 3)
  assert.ok(denied().includes('bob 169.254.169.254 403 Forbidden 1'))
})

test('finished() cuts a long target in the record', () => {
  const { observer: seen, request, lines } = observer()
  seen.finished({ ...request(), rawTarget: `/${'x'.repeat(30_000)}` }, ALICE, 404, '')
  const { url } = JSON.parse(String(lines[0]).slice('Info '.length))
  assert.equal(url, `/${'x'.repeat(2047)}...`)
})

test('started() describes the request at Trace', () => {
  const { observer: seen, request, lines } = observer('Trace')
  seen.started(request())
  seen.started(request(13, DIRECT))
  assert.deepEqual(lines, [
    'Trace 12[9] Got request from 127.0.0.1:40112 for GET /metadata/instance?api-version=2021-02-01',
    'Trace 12[9] Use lookup value:169.254.169.254:80.',
    'Trace 13[9] Got request from 127.0.0.1:40112 for GET /metadata/instance?api-version=2021-02-01',
  ])
})

test('listenerFailed() tells a fault that the listener survives', () => {
  const { observer: seen, lines, unended } = observer()
  seen.listenerFailed('accept ENOMEM')
  assert.deepEqual(lines, ['Error 0[0] The listener reports: accept ENOMEM'])
  assert.equal(unended(), 0)
})

test('sent(), hostAnswered() and finished() tell the way of a request at Trace, the key by its guid alone', () => {
  const { observer: seen, request, lines, time } = observer('Trace')
  const asked = request()
  seen.sent(asked, 5, 'Azure-HMAC-SHA256 9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf 4A404E635266556A')
  seen.sent(asked, undefined, undefined)
  seen.hostAnswered(asked, 404, time.ms)
  seen.finished(asked, ALICE, 404, '')
  assert.deepEqual(
    lines.filter((line) => line.startsWith('Trace')),
    [
      'Trace 12[9] Request body length: 5.',
      'Trace 12[9] Added authorization header, key 9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf.',
      'Trace 12[9] Request body length: as it comes.',
      'Trace 12[9] No authorization header is added.',
      'Trace 12[9] Received response from host: 404 Not Found.',
      'Trace 12[9] Http connection finished with status code: 404 Not Found.',
    ],
  )
})

test('finished() shows no part of a secret that the cut of the target or of the detail goes through', () => {
  const { observer: seen, request, lines } = observer()
  const secret = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
  seen.finished(
    { ...request(), rawTarget: `/${'x/'.repeat(1010)}${secret}` },
    ALICE,
    404,
    `${'x '.repeat(2040)}${secret}`,
  )
  assert.doesNotMatch(String(lines[0]), /4A40/)
})
