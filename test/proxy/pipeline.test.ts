import assert from 'node:assert/strict'
import { after, afterEach, before, describe, test } from 'node:test'
import { HOSTGA, IMDS, WIRESERVER } from '../../src/base/endpoints.ts'
import type { ProvisionQuery } from '../../src/proxy/stages.ts'
import {
  ALICE,
  ALLOWED,
  AUDITED,
  attributing,
  DENIED,
  type ProxyUnderTest,
  ROOT,
  startProxy,
} from './proxy-under-test.ts'

let proxy: ProxyUnderTest
let defaults: ProxyUnderTest['stages']

before(async () => {
  proxy = await startProxy()
  defaults = { ...proxy.stages }
})
after(() => proxy.close())
afterEach(() => {
  Object.assign(proxy.stages, defaults)
  proxy.host.onCall((call) => call.answer(200, {}, 'ok'))
  proxy.told.length = 0
  proxy.host.calls.length = 0
})

const get = (target: string, headers = '') => `GET ${target} HTTP/1.1\r\nHost: h\r\n${headers}\r\n`

/** The whole head of an answer that refuses, without the date. */
function withoutDate(head: string): string[] {
  return head.split('\r\n').filter((line) => !/^date: /i.test(line))
}

const direct = () => undefined

describe('a refusal is an empty body on a connection that ends', () => {
  const rows: readonly {
    situation: string
    request: string
    set?: Partial<ProxyUnderTest['stages']>
    answer: string[]
    told: string[]
  }[] = [
    {
      situation: 'a direct connection',
      request: get('/metadata/instance'),
      set: { attribute: direct },
      answer: ['HTTP/1.1 421 Misdirected Request', 'content-length: 0', 'connection: close'],
      told: [
        'connected direct: no record of a redirected connection',
        'started GET /metadata/instance',
        'finished GET /metadata/instance nobody normal 421: No remote destination_ip found in the request, return!',
      ],
    },
    {
      situation: 'a redirected connection whose caller cannot be had',
      request: get('/x'),
      set: { attribute: () => ({ destination: IMDS, uid: 0, caller: Promise.reject(new Error('no names')) }) },
      answer: ['HTTP/1.1 421 Misdirected Request', 'content-length: 0', 'connection: close'],
      told: [
        'connected 169.254.169.254',
        'started GET /x',
        'finished GET /x nobody failed 421: No claims found in the request, return!',
      ],
    },
    {
      situation: 'a destination that is none of the guarded services',
      request: get('/x'),
      set: { attribute: attributing(ROOT, { address: '169.254.169.254', port: 8080 }) },
      answer: ['HTTP/1.1 403 Forbidden', 'content-length: 0', 'connection: close'],
      told: [
        'connected 169.254.169.254',
        'started GET /x',
        'finished GET /x nobody normal 403: The destination is none of the guarded services',
      ],
    },
    {
      situation: 'the listener itself as destination',
      request: get('/x'),
      set: { attribute: attributing(ROOT, { address: '127.0.0.1', port: 3080 }) },
      answer: ['HTTP/1.1 403 Forbidden', 'content-length: 0', 'connection: close'],
      told: [
        'connected 127.0.0.1',
        'started GET /x',
        'finished GET /x nobody normal 403: The destination is none of the guarded services',
      ],
    },
    {
      situation: 'a caller without permission',
      request: get('/x'),
      set: { attribute: attributing(ALICE), decide: () => DENIED },
      answer: ['HTTP/1.1 403 Forbidden', 'content-length: 0', 'connection: close'],
      told: ['connected 169.254.169.254', 'started GET /x', 'decided GET /x alice forbidden'],
    },
    {
      situation: 'rules that cannot be had',
      request: get('/x'),
      set: {
        decide: () => {
          throw new Error('no rules')
        },
      },
      answer: ['HTTP/1.1 500 Internal Server Error', 'content-length: 0', 'connection: close'],
      told: ['connected 169.254.169.254', 'started GET /x', 'failed GET /x: no rules'],
    },
    {
      situation: 'a path that climbs',
      request: get('/a/%2e%2e/b'),
      answer: ['HTTP/1.1 403 Forbidden', 'content-length: 0', 'connection: close'],
      told: [
        'connected 169.254.169.254',
        'started GET /a/%2e%2e/b',
        'finished GET /a/%2e%2e/b nobody normal 403: Traversal characters found in the request, return FORBIDDEN!',
      ],
    },
    {
      situation: 'a character that targets do not have',
      request: get('/a<b'),
      answer: ['HTTP/1.1 400 Bad Request', 'content-length: 0', 'connection: close'],
      told: [
        'connected 169.254.169.254',
        'started GET /a<b',
        'finished GET /a<b nobody normal 400: The request target has characters that a target may not have',
      ],
    },
    {
      situation: 'an asterisk target',
      request: 'OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n',
      answer: ['HTTP/1.1 400 Bad Request', 'content-length: 0', 'connection: close'],
      told: [
        'connected 169.254.169.254',
        'started OPTIONS *',
        'decided OPTIONS * root ok',
        'finished OPTIONS * root normal 400: The request target is neither a path nor an absolute URL',
      ],
    },
  ]
  for (const { situation, request, set, answer, told } of rows) {
    test(situation, async () => {
      Object.assign(proxy.stages, set)
      const got = await proxy.ask(request)
      assert.deepEqual(withoutDate(got.head), answer)
      assert.equal(got.body, '')
      assert.deepEqual(proxy.told, told)
      assert.equal(proxy.host.calls.length, 0, 'the host was asked')
    })
  }
})

describe('methods', () => {
  const allow = 'allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH'
  const refusal = [
    'HTTP/1.1 405 Method Not Allowed',
    allow,
    'content-type: text/plain; charset=utf-8',
    'content-length: 18',
    'connection: close',
  ]
  for (const method of ['TRACE', 'PROPFIND', 'PURGE', 'QUERY', 'FOO', 'get', "it's!"]) {
    test(`${method} is refused with the list of those that are allowed`, async () => {
      const got = await proxy.ask(`${method} /x HTTP/1.1\r\nHost: h\r\n\r\n`)
      assert.deepEqual(withoutDate(got.head), refusal)
      assert.equal(got.body, 'Method Not Allowed')
      const last = String(proxy.told.at(-1))
      assert.ok(last.endsWith(`405: Rejected unsupported HTTP method '${method}'`), last)
    })
  }
  test('CONNECT is refused like the others', async () => {
    const got = await proxy.ask('CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n')
    assert.deepEqual(withoutDate(got.head), refusal)
    assert.equal(
      proxy.told.at(-1),
      "finished CONNECT h:80 nobody normal 405: Rejected unsupported HTTP method 'CONNECT'",
    )
  })
  for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
    test(`${method} reaches the host`, async () => {
      const got = await proxy.ask(`${method} /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n`)
      assert.equal(got.status, 200)
      assert.equal(proxy.host.calls[0]?.method, method)
      assert.equal(proxy.told.at(-1), `finished ${method} /x root normal 200: `)
    })
  }
})

describe('of two reasons to refuse, the earlier step speaks', () => {
  const rows: readonly [situation: string, request: string, set: Partial<ProxyUnderTest['stages']>, status: number][] =
    [
      ['size before method', 'TRACE /x HTTP/1.1\r\nHost: h\r\nContent-Length: 102401\r\n\r\n', {}, 413],
      [
        'size before destination',
        'POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 102401\r\n\r\n',
        { attribute: direct },
        413,
      ],
      ['method before traversal', 'TRACE /../x HTTP/1.1\r\nHost: h\r\n\r\n', {}, 405],
      ['method before local endpoints', 'TRACE /provision HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n', {}, 405],
      ['traversal before destination', get('//x'), { attribute: direct }, 403],
      ['local endpoints before destination', get('/provision', 'Metadata: true\r\n'), { attribute: direct }, 200],
      ['local endpoints before rules', get('/provision', 'Metadata: true\r\n'), { decide: () => DENIED }, 200],
      ['destination before rules', get('/x'), { attribute: direct, decide: () => DENIED }, 421],
      [
        'rules before the length of a chunked body',
        `POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n${'a'.repeat(0x20000)}`,
        { decide: () => DENIED },
        403,
      ],
    ]
  for (const [situation, request, set, status] of rows) {
    test(situation, async () => {
      Object.assign(proxy.stages, set)
      assert.equal((await proxy.ask(request)).status, status)
    })
  }
})

describe('sizes', () => {
  const body = (size: number) => `Content-Length: ${size}\r\n\r\n${'a'.repeat(size)}`
  const tooLarge = [
    'HTTP/1.1 413 Payload Too Large',
    'content-type: text/plain; charset=utf-8',
    'content-length: 21',
    'connection: close',
  ]
  test('an announced body of exactly 100 KiB passes', async () => {
    const got = await proxy.ask(`POST /x HTTP/1.1\r\nHost: h\r\n${body(102_400)}`)
    assert.equal(got.status, 200)
    assert.equal(proxy.host.calls[0]?.body.length, 102_400)
  })
  test('one byte more is refused, not counted, and told', async () => {
    const got = await proxy.ask(`POST /x HTTP/1.1\r\nHost: h\r\n${body(102_401)}`)
    assert.deepEqual(withoutDate(got.head), tooLarge)
    assert.equal(got.body, 'length limit exceeded')
    assert.deepEqual(proxy.told.slice(1), ['rejected 413: the request announces a body of 102401 bytes'])
  })
  test('a chunked body of exactly 100 KiB passes', async () => {
    const chunked = `19000\r\n${'a'.repeat(102_400)}\r\n0\r\n\r\n`
    const got = await proxy.ask(`POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n${chunked}`)
    assert.equal(got.status, 200)
  })
  test('a chunked body of one byte more is refused when that byte arrives', async () => {
    const chunked = `19001\r\n${'a'.repeat(102_401)}`
    const got = await proxy.ask(`POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n${chunked}`)
    assert.deepEqual(withoutDate(got.head), tooLarge)
    assert.equal(got.body, 'length limit exceeded')
    assert.equal(proxy.told.at(-1), 'finished POST /x root normal 413: The body is larger than 102400 bytes')
    assert.equal(proxy.host.calls.length, 0)
  })
  for (const framing of ['Content-Length: 3000000', 'Transfer-Encoding: chunked']) {
    test(`a client that first writes megabytes (${framing}) still gets its refusal, and an orderly end`, async () => {
      const client = proxy.connect()
      const body = Buffer.alloc(3_000_000, 'a')
      const isChunked = framing.endsWith('chunked')
      client.write(`POST /x HTTP/1.1\r\nHost: h\r\n${framing}\r\n\r\n${isChunked ? '2dc6c0\r\n' : ''}`)
      client.write(body)
      if (isChunked) client.write('\r\n0\r\n\r\n')
      const [answer] = await client.answers(1)
      assert.equal(answer?.status, 413)
      assert.equal(answer?.body, 'length limit exceeded')
      const startedAtMs = performance.now()
      assert.equal(await client.ended, 'closed')
      assert.ok(performance.now() - startedAtMs < 1500, 'the end came late')
      assert.equal(client.socket.writableLength, 0, 'not all was read')
    })
  }
})

describe('audit', () => {
  test('a denial in audit mode is told and carried', async () => {
    Object.assign(proxy.stages, { attribute: attributing(ALICE), decide: () => AUDITED })
    assert.equal((await proxy.ask(get('/x'))).status, 200)
    assert.deepEqual(proxy.told.slice(2), ['decided GET /x alice audit', 'finished GET /x alice normal 200: '])
  })
})

describe('decisions are made for where the connection was going', () => {
  for (const endpoint of [WIRESERVER, IMDS, HOSTGA]) {
    test(`${endpoint.name}, whatever target and host header say`, async () => {
      const asked: unknown[] = []
      Object.assign(proxy.stages, {
        attribute: attributing(ALICE, endpoint),
        decide: (...args: unknown[]) => {
          asked.push(args)
          return ALLOWED
        },
      })
      await proxy.ask('GET http://example.invalid:99/p?q HTTP/1.1\r\nHost: other.invalid\r\n\r\n')
      assert.deepEqual(asked, [[endpoint, ALICE, 'GET', 'http://example.invalid:99/p?q']])
    })
  }
})

describe('/provision', () => {
  const STATUS_LINE = 'ebpfProgramStatus - "x"\r\n'
  const asks: ProvisionQuery[] = []
  const set = (state = { finished: false, errorMessage: STATUS_LINE }) => {
    asks.length = 0
    Object.assign(proxy.stages, {
      provision: (query: ProvisionQuery) => {
        asks.push(query)
        return state
      },
    })
  }

  test('answers JSON and keeps the connection', async () => {
    set()
    const client = proxy.connect()
    client.write(get('/provision', 'Metadata: true\r\n').repeat(2))
    const answers = await client.answers(2)
    for (const answer of answers) {
      assert.equal(answer.status, 200)
      assert.equal(answer.headers['content-type'], 'application/json; charset=utf-8')
      assert.equal(answer.body, '{"finished":false,"errorMessage":"ebpfProgramStatus - \\"x\\"\\r\\n"}')
      assert.equal(answer.headers['x-ms-azure-host-authorization'], undefined)
    }
    client.destroy()
  })
  test('is served to a direct connection', async () => {
    set()
    Object.assign(proxy.stages, { attribute: direct })
    assert.equal((await proxy.ask(get('/provision', 'Metadata: true\r\n'))).status, 200)
  })
  test('without a Metadata header is 400 on a connection that ends', async () => {
    set()
    const got = await proxy.ask(get('/provision'))
    assert.deepEqual(withoutDate(got.head), ['HTTP/1.1 400 Bad Request', 'content-length: 0', 'connection: close'])
    assert.deepEqual(asks, [])
    assert.ok(proxy.told.includes('served GET /provision root 400: No Metadata header found in the request.'))
  })
  test('an empty Metadata header is one', async () => {
    set()
    assert.equal((await proxy.ask(get('/provision', 'Metadata:\r\n'))).status, 200)
  })
  for (const method of ['HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
    test(`${method} is served like GET`, async () => {
      set()
      const got = await proxy.ask(
        `${method} /provision HTTP/1.1\r\nHost: h\r\nMetadata: true\r\nContent-Length: 0\r\n\r\n`,
      )
      assert.equal(got.status, 200)
      assert.equal(
        Number(got.headers['content-length']),
        JSON.stringify({ finished: false, errorMessage: STATUS_LINE }).length,
      )
    })
  }

  const TICKS: readonly (readonly [text: string | undefined, tick: bigint])[] = [
    [undefined, 0n],
    ['0', 0n],
    ['1767323045000000000', 1767323045000000000n],
    ['+5', 5n],
    ['-5', -5n],
    ['', 0n],
    ['5.5', 0n],
    ['0x10', 0n],
    ['1 2', 0n],
    ['1e3', 0n],
    ['1_000', 0n],
    ['170141183460469231731687303715884105727', 170141183460469231731687303715884105727n],
    ['-170141183460469231731687303715884105728', -170141183460469231731687303715884105728n],
    // Not a signed number of 128 bits any more.
    ['170141183460469231731687303715884105728', 0n],
    ['999999999999999999999999999999999999999', 0n],
    ['00000000000000000000000000000000000000000000000000005', 5n],
  ]
  for (const [text, tick] of TICKS) {
    test(`reads the tick ${text === undefined ? 'that is absent' : `'${text}'`} as ${tick}`, async () => {
      set()
      await proxy.ask(
        get('/provision', `Metadata: true\r\n${text === undefined ? '' : `x-ms-azure-time-tick: ${text}\r\n`}`),
      )
      assert.deepEqual(asks, [{ tick, notify: false }])
    })
  }
  test('any notify header asks to be served sooner', async () => {
    set()
    await proxy.ask(get('/provision', 'Metadata: true\r\nX-Ms-Azure-Notify: false\r\n'))
    assert.deepEqual(asks, [{ tick: 0n, notify: true }])
  })

  const TARGETS: readonly (readonly [target: string, isLocal: boolean])[] = [
    ['/provision', true],
    ['/provision?', true],
    ['/provision#part', true],
    ['/provision?x=1', false],
    ['/provision??', false],
    ['/provision/', false],
    ['/Provision', false],
    ['/%70rovision', false],
    ['http://169.254.169.254/provision', false],
  ]
  for (const [target, isLocal] of TARGETS) {
    test(`${target} is ${isLocal ? 'local' : 'for the host'}`, async () => {
      set()
      await proxy.ask(get(target, 'Metadata: true\r\n'))
      assert.equal(asks.length, isLocal ? 1 : 0)
      assert.equal(proxy.host.calls.length, isLocal ? 0 : 1)
    })
  }
})

describe('/gpa-aggregated-status', () => {
  const ask = (headers = 'Metadata: true\r\n') => proxy.ask(get('/gpa-aggregated-status', headers))
  const refused = (status: string) => [`HTTP/1.1 ${status}`, 'content-length: 0', 'connection: close']

  test('is JSON for root on a redirected connection, without asking rules or host', async () => {
    Object.assign(proxy.stages, { decide: () => DENIED })
    const got = await ask()
    assert.equal(got.status, 200)
    assert.equal(got.headers['content-type'], 'application/json; charset=utf-8')
    assert.equal(got.body, '{"status":"fake"}')
    assert.equal(proxy.host.calls.length, 0)
  })
  test('is forbidden for others', async () => {
    Object.assign(proxy.stages, { attribute: attributing(ALICE) })
    assert.deepEqual(withoutDate((await ask()).head), refused('403 Forbidden'))
    assert.ok(
      proxy.told.includes('served GET /gpa-aggregated-status alice 403: Status refused: the caller is not root'),
    )
  })
  test('is forbidden on a direct connection, root or not', async () => {
    Object.assign(proxy.stages, { attribute: direct })
    assert.deepEqual(withoutDate((await ask()).head), refused('403 Forbidden'))
  })
  test('without a Metadata header is 400, before anything is asked about the caller', async () => {
    Object.assign(proxy.stages, { attribute: direct })
    assert.deepEqual(withoutDate((await ask('')).head), refused('400 Bad Request'))
  })
  test('with a query is for the host', async () => {
    await proxy.ask(get('/gpa-aggregated-status?x', 'Metadata: true\r\n'))
    assert.equal(proxy.host.calls[0]?.target, '/gpa-aggregated-status?x')
  })
  test('is not summarised, but its lines end', async () => {
    await ask()
    assert.deepEqual(proxy.told.slice(1), [
      'started GET /gpa-aggregated-status',
      'served GET /gpa-aggregated-status root 200',
    ])
  })
})
