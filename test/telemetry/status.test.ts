import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createConnectionSummary } from '../../src/telemetry/connection-summary.ts'
import { createStatusBoard, type ModuleName, renderStatus } from '../../src/telemetry/status.ts'
import { createFakeLog } from '../fakes/log.ts'

function board() {
  const log = createFakeLog()
  const normal = createConnectionSummary(() => 0)
  const denied = createConnectionSummary(() => 0)
  const nowMs = () => Date.UTC(2026, 0, 2, 3, 5, 6, 789)
  return {
    log,
    normal,
    denied,
    board: createStatusBoard({ version: '1.2.3', log, nowMs, requestCount: () => 27, normal, denied }),
  }
}

const KEY = {
  userName: 'root',
  clientAddress: '127.0.0.1',
  address: '168.63.129.16',
  port: 80,
  processFullPath: '/usr/bin/python3.12',
  processCmdLine: 'python3 -u waagent',
  responseStatus: '200 OK',
}

test('document() has the members of the contract, in their order', () => {
  const { board: status, normal, denied } = board()
  normal.add(KEY, ['root'])
  normal.add(KEY, ['root'])
  denied.add({ ...KEY, userName: 'alice', port: 32526, responseStatus: '403 Forbidden' }, ['alice', 'adm'])
  for (const module of ['keyKeeper', 'redirector', 'proxyServer'] as const) status.setState(module, 'RUNNING')
  status.setMessage('keyKeeper', 'Successfully attest the key and ready to use. - 912')
  status.setMessage('redirector', 'Started Redirector with eBPF maps - 401')
  status.setMessage('proxyServer', 'Started proxy listener, ready to accept request - 35')
  status.setKeyStates({
    secureChannelState: 'WireServer Enforce -  IMDS Audit - HostGA Enforce',
    keyGuid: undefined,
    wireServerRuleId: '',
  })
  const expected = {
    timestamp: '2026-01-02T03:05:06.789',
    proxyAgentStatus: {
      version: '1.2.3',
      status: 'SUCCESS',
      monitorStatus: { status: 'RUNNING', message: 'Proxy agent status is running.' },
      keyLatchStatus: {
        status: 'RUNNING',
        message: 'Successfully attest the key and ready to use. - 912',
        states: { secureChannelState: 'WireServer Enforce -  IMDS Audit - HostGA Enforce', wireServerRuleId: '' },
      },
      ebpfProgramStatus: { status: 'RUNNING', message: 'Started Redirector with eBPF maps - 401' },
      proxyListenerStatus: { status: 'RUNNING', message: 'Started proxy listener, ready to accept request - 35' },
      telemetryLoggerStatus: { status: 'UNKNOWN', message: 'Status unknown.' },
      proxyConnectionsCount: 27,
    },
    proxyConnectionSummary: [
      {
        userName: 'root',
        ip: '168.63.129.16',
        port: 80,
        processCmdLine: 'python3 -u waagent',
        responseStatus: '200 OK',
        count: 2,
        userGroups: ['root'],
        processFullPath: '/usr/bin/python3.12',
      },
    ],
    failedAuthenticateSummary: [
      {
        userName: 'alice',
        ip: '168.63.129.16',
        port: 32526,
        processCmdLine: 'python3 -u waagent',
        responseStatus: '403 Forbidden',
        count: 1,
        userGroups: ['alice', 'adm'],
        processFullPath: '/usr/bin/python3.12',
      },
    ],
  }
  // Compared as text: the order is part of the contract.
  assert.equal(JSON.stringify(status.document(), null, 2), JSON.stringify(expected, null, 2))
})

test('document() of a fresh board says that nothing is known', () => {
  const { board: status } = board()
  const { proxyAgentStatus } = status.document()
  assert.equal(proxyAgentStatus.status, 'ERROR')
  const unknown = { status: 'UNKNOWN', message: 'Status unknown.' }
  assert.deepEqual(proxyAgentStatus.ebpfProgramStatus, unknown)
  assert.deepEqual(proxyAgentStatus.proxyListenerStatus, unknown)
  assert.deepEqual(proxyAgentStatus.telemetryLoggerStatus, unknown)
  // These states are always there, readers rely on it.
  assert.deepEqual(proxyAgentStatus.keyLatchStatus, {
    ...unknown,
    states: { secureChannelState: 'Unknown', wireServerRuleId: '', imdsRuleId: '', hostGARuleId: '' },
  })
})

for (const stopped of ['keyKeeper', 'redirector', 'proxyServer'] as const) {
  test(`document() says ERROR while ${stopped} is not running, and SUCCESS with it`, () => {
    const { board: status } = board()
    const parts: readonly ModuleName[] = ['keyKeeper', 'redirector', 'proxyServer']
    for (const part of parts) status.setState(part, part === stopped ? 'STOPPED' : 'RUNNING')
    assert.equal(status.document().proxyAgentStatus.status, 'ERROR')
    assert.equal(status.state(stopped), 'STOPPED')
    status.setState(stopped, 'RUNNING')
    assert.equal(status.document().proxyAgentStatus.status, 'SUCCESS')
  })
}

test('setMessage() logs a changed message once, whole', () => {
  const { board: status, log } = board()
  status.setMessage('redirector', 'a')
  status.setMessage('redirector', 'a')
  status.setMessage('redirector', 'b')
  status.setMessage('monitor', 'written')
  assert.deepEqual(log.lines, [
    'Warn Redirector status: a',
    'Warn Redirector status: b',
    'Warn ProxyAgentStatus status: written',
  ])
})

test('message() shows 1024 bytes and three dots, on a character boundary', () => {
  const { board: status, log } = board()
  const long = `x${'é'.repeat(600)}`
  status.setMessage('keyKeeper', long)
  assert.equal(status.message('keyKeeper'), `x${'é'.repeat(511)}...`)
  assert.equal(status.document().proxyAgentStatus.keyLatchStatus.message, `x${'é'.repeat(511)}...`)
  assert.ok(log.lines[0]?.endsWith(long))
  status.setMessage('keyKeeper', 'y'.repeat(1024))
  assert.equal(status.message('keyKeeper'), 'y'.repeat(1024))
})

test('document() is a picture: what changes later is not in it', () => {
  const { board: status } = board()
  const before = status.document()
  status.setMessage('redirector', 'later')
  status.setState('redirector', 'STOPPED')
  status.setKeyStates({ keyGuid: 'later' })
  assert.doesNotMatch(JSON.stringify(before), /later|STOPPED/)
})

test('setMessage() makes control characters visible, in the document as in the answer to /provision', () => {
  const { board: status } = board()
  const forged = 'the port is taken by a\r\nkeyLatchStatus - all is well\x1b[2J (pid 7)'
  const shown = 'the port is taken by a\\x0d\\x0akeyLatchStatus - all is well\\x1b[2J (pid 7)'
  status.setMessage('proxyServer', forged)
  assert.equal(status.message('proxyServer'), shown)
  assert.equal(status.document().proxyAgentStatus.proxyListenerStatus.message, shown)
})

for (const entries of [0, 1, 49, 50, 51, 130]) {
  test(`renderStatus() makes the same document as in one go, in short pieces, of ${entries} callers`, () => {
    const { board: status, normal, denied } = board()
    for (let i = 0; i < entries; i++) {
      const key = { ...KEY, userName: `user ${i}`, processCmdLine: 'a\n"b' }
      normal.add(key, ['a', 'b'])
      denied.add(key, [])
    }
    const document = status.document()
    const pieces = [...renderStatus(document)]
    assert.equal(pieces.join(''), JSON.stringify(document, null, 2))
    assert.ok(Math.max(...pieces.map((piece) => piece.split('"userName"').length - 1)) <= 50)
  })
}
