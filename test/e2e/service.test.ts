/** The executable as a service, at a console and on the command line. */

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { AGENT_UNDER_TEST, createMachine, ROOT, waitFor } from './machine.ts'

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'
const VERSION = (
  JSON.parse(execFileSync('cat', [join(ROOT, 'package.json')], { encoding: 'utf8' })) as { version: string }
).version

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(AGENT_UNDER_TEST, args, { encoding: 'utf8', timeout: 20_000 })
  return { status, stdout, stderr }
}

describe('the command line', () => {
  for (const word of ['--version', '-v']) {
    test(`${word} prints the version alone`, () => {
      assert.deepEqual(run(word), { status: 0, stdout: `${VERSION}\n`, stderr: '' })
    })
  }

  test('--help, -h and help print the usage on standard output', () => {
    for (const words of [['--help'], ['-h'], ['help'], ['help', 'console'], ['console', '--help']]) {
      const { status, stdout, stderr } = run(...words)
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' }, words.join(' '))
      assert.match(stdout, /^Usage: azure-proxy-agent/)
    }
  })

  test('unknown words and options are usage errors: text on stderr, exit 2', () => {
    for (const words of [
      ['start'],
      ['--verbose'],
      ['-V'],
      ['--wait', '3'],
      ['-s', '-w', '-1'],
      ['console', '-s'],
      ['-s', '-s'],
    ]) {
      const { status, stdout, stderr } = run(...words)
      assert.deepEqual({ status, stdout }, { status: 2, stdout: '' }, words.join(' '))
      assert.match(stderr, /^azure-proxy-agent: .+\n\nUsage: /)
    }
  })

  test('a bad configuration names file, line, key, value and reason, exit 78', () => {
    const folder = mkdtempSync(join(tmpdir(), 'apa-config-'))
    try {
      const path = join(folder, 'proxy-agent.json')
      const rows: readonly (readonly [text: string, complaint: RegExp])[] = [
        ['{"logFolder": "/x",\n "eventFolder": 7}', /line 2: key 'eventFolder' is 7; it must be a string/],
        ['{"logFolder": "/x",\n oops}', /line 2, column 2/],
        ['{}', /key 'logFolder' is missing/],
      ]
      for (const [text, complaint] of rows) {
        writeFileSync(path, text)
        const { status, stderr } = run('--config', path)
        assert.equal(status, 78)
        assert.ok(stderr.includes(`Error in reading Config from Json file: ${path}: `), stderr)
        assert.match(stderr, complaint)
      }
      assert.match(run('-c', join(folder, 'none')).stderr, /no such file/)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('a reader who has gone, or a full disk behind standard output, is no fault of the agent', () => {
    for (const [words, status] of [
      ['--help', 0],
      ['--version', 0],
      ['nonsense', 2],
    ] as const) {
      for (const output of ['>/dev/full 2>/dev/full', '>&- 2>&-']) {
        const shell = spawnSync('/bin/sh', ['-c', `"$0" ${words} ${output}`, AGENT_UNDER_TEST], { encoding: 'utf8' })
        assert.equal(shell.status, status, `${words} ${output}`)
      }
    }
  })

  test('runs alone in an empty directory, with no PATH and no environment', () => {
    const folder = mkdtempSync(join(tmpdir(), 'apa-alone-'))
    try {
      const copy = join(folder, 'agent')
      copyFileSync(AGENT_UNDER_TEST, copy)
      const result = spawnSync(copy, ['--version'], { cwd: folder, env: { PATH: '' }, encoding: 'utf8' })
      assert.deepEqual([result.status, result.stdout, result.stderr], [0, `${VERSION}\n`, ''])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('--status', () => {
  test('exits 0 silently once provisioned, with and without a wait', async () => {
    await using machine = await createMachine()
    for (const words of [['--status'], ['-s', '-w', '5'], ['-sw5']]) {
      assert.deepEqual(await machine.lab.run(AGENT_UNDER_TEST, words), { code: 0, stdout: '', stderr: '' })
    }
  })

  test('exits 1 with one line when there is no service, in the time it was given', async () => {
    await using machine = await createMachine({ start: { host: false, agent: false } })
    const startMs = performance.now()
    const { code, stdout } = await machine.lab.run(AGENT_UNDER_TEST, ['--status', '--wait', '1'])
    assert.equal(code, 1)
    assert.match(stdout, /^Failed to query the current provision state with error: .+\.\nFailed .+ \(\d+ times\)\n$/)
    assert.ok(performance.now() - startMs < 4000)
  })

  test('is answered for any local user, and refused without the Metadata header', async () => {
    await using machine = await createMachine()
    const url = 'http://127.0.0.1:3080/provision'
    const user = { uid: 1000, gid: 1000 }
    const answer = await machine.curl(['-H', 'Metadata: true', '-H', 'x-ms-azure-time-tick: 0', url], user)
    assert.deepEqual(JSON.parse(answer.body), { finished: true, errorMessage: '' })
    assert.equal((await machine.curl([url], user)).status, 400)
  })
})

test('--status ends in time although the one who listens never answers', async () => {
  await using machine = await createMachine({ start: { host: false, agent: false } })
  const script = `
import socket, time
listener = socket.create_server(('127.0.0.1', 3080))
print('ready', flush=True)
time.sleep(30)
`
  const squatter = machine.lab.spawn('/usr/bin/python3', ['-c', script])
  let said = ''
  squatter.stdout.on('data', (chunk) => {
    said += chunk
  })
  await waitFor(() => said.includes('ready'), 'the listener')
  const startMs = performance.now()
  const { code, stdout } = await machine.lab.run(AGENT_UNDER_TEST, ['--status', '--wait', '2'])
  assert.equal(code, 1)
  assert.match(stdout, /^Failed to query the current provision state with error: no answer within/)
  assert.ok(performance.now() - startMs < 4000)
})

describe('the service', () => {
  test('SIGTERM and SIGINT: exit 0 within five seconds, and nothing is redirected any more', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      await using machine = await createMachine()
      assert.equal((await machine.curl([GOAL_STATE])).status, 200)
      const startMs = performance.now()
      machine.agent.kill(signal)
      assert.deepEqual(await machine.agent.ended, { code: 0, signal: null })
      assert.ok(performance.now() - startMs < 5000)
      assert.equal((await machine.curl([GOAL_STATE])).status, 401, 'the host itself answers')
      assert.match(machine.read('log', 'ProxyAgent.log'), /GuestProxyAgent is stopping/)
      assert.match(machine.read('status', 'status.json'), /"proxyListenerStatus": \{\s+"status": "STOPPED"/)
    }
  })

  test('SIGTERM at any moment of the start ends it as well', async () => {
    await using machine = await createMachine({ start: { agent: false } })
    for (let delayMs = 40; delayMs < 400; delayMs += 24) {
      const agent = machine.startAgent()
      await sleep(delayMs)
      const startMs = performance.now()
      agent.kill('SIGTERM')
      const { code, signal } = await agent.ended
      // Before the program has begun the runtime dies of the signal.
      assert.ok(code === 0 || signal === 'SIGTERM', `after ${delayMs} ms: ${code} ${signal}\n${agent.output()}`)
      assert.ok(performance.now() - startMs < 5000, `after ${delayMs} ms`)
    }
  })

  test('SIGHUP asks the host at once', async () => {
    await using machine = await createMachine({ config: { pollKeyStatusIntervalInSeconds: 3600 } })
    const polls = async () =>
      (await machine.host.readRequests()).filter(({ target }) => target === '/secure-channel/status')
    const before = (await polls()).length
    machine.agent.kill('SIGHUP')
    await waitFor(async () => (await polls()).length === before + 1, 'a poll')
    assert.equal((await machine.curl([GOAL_STATE])).status, 200)
  })

  test('killed: redirection ends with the process', async () => {
    await using machine = await createMachine()
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    assert.equal((await machine.curl([GOAL_STATE])).status, 401)
  })

  test('a second instance says that the port is taken and by whom, and does not disturb the first', async () => {
    await using machine = await createMachine()
    const first = machine.agent
    const second = machine.startAgent()
    const text = `Failed to bind TcpListener '127.0.0.1:3080': Address already in use (os error 98)`
    await waitFor(
      () => second.output().includes(text),
      'the complaint',
      () => second.output(),
    )
    assert.match(second.output(), new RegExp(`the port is taken by \\S+ \\(pid ${first.pid}\\)`))
    assert.equal((await machine.curl([GOAL_STATE])).status, 200)
    second.kill('SIGTERM')
    assert.equal((await second.ended).code, 0)
    assert.equal((await machine.curl([GOAL_STATE])).status, 200)
  })

  test('console: runs until Enter; the end of standard input does not stop it', async () => {
    await using machine = await createMachine({ start: { agent: false } })
    const withEnter = machine.startAgent(['console'])
    await machine.waitUntilProvisioned()
    assert.match(withEnter.output(), /Press Enter to end it\./)
    withEnter.stdin.write('\n')
    assert.equal((await withEnter.ended).code, 0)

    const withoutInput = machine.startAgent(['console'])
    withoutInput.stdin.end()
    await machine.waitUntilProvisioned()
    assert.equal((await machine.curl([GOAL_STATE])).status, 200)
    withoutInput.kill('SIGTERM')
    assert.equal((await withoutInput.ended).code, 0)
  })

  test('works in a pid namespace of its own: its connections are not redirected, callers are known', async () => {
    await using machine = await createMachine({ start: { agent: false } })
    const child = machine.lab.spawn('unshare', [
      ...['--pid', '--fork', '--kill-child', '--mount-proc'],
      ...[AGENT_UNDER_TEST, '--config', machine.configPath],
    ])
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    await waitFor(
      () => output.includes('Provision finished successfully'),
      'provisioning',
      () => output,
    )
    const { result, requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
    assert.equal(result.status, 200)
    assert.deepEqual([requests[0]?.signature, requests[0]?.isRoot], ['right', true])
    assert.equal((await machine.curl([GOAL_STATE], { uid: 1000, gid: 1000 })).status, 403)
  })

  test('writes logs and status for its group alone', async () => {
    await using machine = await createMachine()
    await machine.curl([GOAL_STATE])
    await waitFor(() => machine.read('log', 'ProxyAgent.Connection.log') !== '', 'the connection log')
    await waitFor(() => machine.read('status', 'status.json') !== '', 'the status file')
    const mode = (...path: string[]) => (statSync(join(machine.folder, ...path)).mode & 0o777).toString(8)
    assert.equal(mode('log'), '750')
    assert.equal(mode('log', 'ProxyAgent.log'), '640')
    assert.equal(mode('log', 'ProxyAgent.Connection.log'), '640')
    assert.equal(mode('status', 'status.json'), '640')
    for (const line of machine.read('log', 'ProxyAgent.log').trimEnd().split('\n')) {
      assert.match(line, /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3} \[(ERROR|WARN|INFO|DEBUG|TRACE)\] +\S/)
    }
  })

  test('the aggregate status is for root on a redirected connection alone', async () => {
    await using machine = await createMachine()
    const ask = (url: string, options = {}, ...more: string[]) =>
      machine.curl(['-H', 'Metadata: true', ...more, url], options)
    const redirected = 'http://168.63.129.16/gpa-aggregated-status'
    const answer = await ask(redirected)
    assert.equal(answer.status, 200)
    const document = JSON.parse(answer.body) as { proxyAgentStatus: { version: string; status: string } }
    assert.equal(document.proxyAgentStatus.version, VERSION)
    assert.equal(document.proxyAgentStatus.status, 'SUCCESS')
    assert.equal((await ask(redirected, { uid: 1000, gid: 1000 })).status, 403)
    assert.equal((await ask('http://127.0.0.1:3080/gpa-aggregated-status')).status, 403)
    assert.equal((await machine.curl([redirected])).status, 400)
  })

  test('two hundred connections at once are each attributed', async () => {
    await using machine = await createMachine()
    const script = `
import concurrent.futures, http.client
def ask(_):
    connection = http.client.HTTPConnection('169.254.169.254', timeout=20)
    connection.request('GET', '/metadata/instance?api-version=2021-02-01', headers={'Metadata': 'true'})
    return connection.getresponse().status
with concurrent.futures.ThreadPoolExecutor(200) as pool:
    print(sorted(set(pool.map(ask, range(1000)))))
`
    const { stdout, stderr } = await machine.lab.run('/usr/bin/python3', ['-c', script], { timeoutMs: 60_000 })
    assert.equal(stdout.trim(), '[200]', stderr)
  })
})

test('with enableHttpProxyTrace every request leaves one trace on standard output', async () => {
  const config = { enableHttpProxyTrace: true, fileLogLevel: 'Error', fileLogLevelForSystemEvents: 'Warn' }
  await using machine = await createMachine({ config })
  await machine.curl([`${GOAL_STATE}&x=%0aforged&sig=hunter2`])
  const trace = /^\[(\d+)\] - \d+ - \d{4}-\d\d-\d\dT[\d:.]{12} - Got request from .* for GET \/machine\?comp=goalstate/m
  await waitFor(
    () => trace.test(machine.agent.output()),
    'the trace',
    () => machine.agent.output(),
  )
  const [, id] = trace.exec(machine.agent.output()) ?? []
  const lines = machine.agent
    .output()
    .split('\n')
    .filter((line) => line.startsWith(`[${id}] - `))
  assert.ok(lines.length >= 5, lines.join('\n'))
  assert.match(lines.at(-1) ?? '', / - Http connection finished with status code: 200 OK\.$/)
  assert.doesNotMatch(machine.agent.output(), /hunter2/)
})
