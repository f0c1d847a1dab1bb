/** What the executable tells of requests and of itself, where support tools and queries look for it. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { paramValue } from '../fabric/telemetry.ts'
import type { RunOptions } from '../kernel/lab.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, waitFor } from './machine.ts'

const NOBODY = { uid: 65534, gid: 65534 }

interface Outcome {
  readonly situation: string
  readonly args: readonly string[]
  readonly options?: RunOptions
  readonly before?: (machine: Machine) => Promise<void>
  /** Whether it was refused before anybody looked who asked. */
  readonly isUnnamed?: boolean
  readonly answer: number
  /** `responseStatus` in the two lists; `undefined`: not there. */
  readonly normal: string | undefined
  readonly failed: string | undefined
}

const OUTCOMES: readonly Outcome[] = [
  {
    situation: 'forwarded',
    args: ['http://168.63.129.16/machine?comp=goalstate'],
    answer: 200,
    normal: '200 OK',
    failed: undefined,
  },
  {
    situation: 'denied',
    args: ['http://168.63.129.16/machine?comp=goalstate'],
    options: NOBODY,
    answer: 403,
    normal: '403 Forbidden',
    failed: '403 Forbidden',
  },
  {
    situation: 'denied in audit mode',
    args: ['-H', 'Metadata: true', 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'],
    options: NOBODY,
    answer: 200,
    normal: '200 OK',
    failed: '403 Forbidden',
  },
  {
    situation: 'connected to the listener directly',
    args: ['http://127.0.0.1:3080/x'],
    isUnnamed: true,
    answer: 421,
    normal: '421 Misdirected Request',
    failed: undefined,
  },
  {
    situation: 'of a method that is refused',
    args: ['-X', 'TRACE', 'http://168.63.129.16/x'],
    isUnnamed: true,
    answer: 405,
    normal: '405 Method Not Allowed',
    failed: undefined,
  },
  {
    situation: 'of a path that climbs',
    args: ['--path-as-is', 'http://168.63.129.16/a/../b'],
    isUnnamed: true,
    answer: 403,
    normal: '403 Forbidden',
    failed: undefined,
  },
  {
    situation: 'for a host that is not there',
    args: ['http://168.63.129.16:32526/vmSettings'],
    before: (machine) => machine.host.setListener('hostga', 'refuse'),
    answer: 502,
    normal: '502 Bad Gateway',
    failed: undefined,
  },
]

interface Line {
  readonly responseStatus: string
  readonly processCmdLine: string
}

async function readLists(machine: Machine): Promise<{ normal: Line[]; failed: Line[] }> {
  const { body } = await machine.curl(['-H', 'Metadata: true', 'http://168.63.129.16/gpa-aggregated-status'])
  const { proxyConnectionSummary, failedAuthenticateSummary } = JSON.parse(body)
  return { normal: proxyConnectionSummary, failed: failedAuthenticateSummary }
}

/** Who asked, by the name in his command line, and how that ended. */
const describe = ({ processCmdLine, responseStatus }: Line) => [
  /^curl -A (\S+) /.exec(processCmdLine)?.[1] ?? processCmdLine,
  responseStatus,
]

const added = (list: readonly Line[], before: readonly Line[]) =>
  list.filter((line) => !before.some((old) => isDeepStrictEqual(old, line))).map(describe)

test('each outcome is in the lists it belongs to, and as often in the connection log', async () => {
  const imds = { defaultAccess: 'deny', mode: 'audit', id: 'audited' } as const
  const wireserver = { defaultAccess: 'allow', mode: 'enforce', id: 'open' } as const
  await using machine = await createMachine({ rules: { imds, wireserver } })
  const expected: string[][] = []
  for (const { situation, args, options, before, isUnnamed = false, answer, normal, failed } of OUTCOMES) {
    await before?.(machine)
    // Only the first four words of a command line are told: the name that tells this request from the others is the third.
    const name = situation.replaceAll(' ', '-')
    const known = await readLists(machine)
    const words = ['-A', name, '--silent', '--output', '/dev/null', '--write-out', '%{http_code}', ...args]
    assert.equal((await machine.lab.run('curl', words, options)).stdout, String(answer), situation)
    const lists = await readLists(machine)
    const told = (status: string | undefined) => (status === undefined ? [] : [[isUnnamed ? 'empty' : name, status]])
    assert.deepEqual(added(lists.normal, known.normal), told(normal), situation)
    assert.deepEqual(added(lists.failed, known.failed), told(failed), situation)
    expected.push(...told(failed), ...told(normal))
  }
  machine.agent.kill('SIGTERM')
  await machine.agent.ended
  const records = machine
    .read('log', 'ProxyAgent.Connection.log')
    .split('\n')
    .filter((line) => line.slice(34).startsWith('{'))
    .map((line) => describe(JSON.parse(line.slice(34))))
  assert.deepEqual(records, expected)
})

test('the serial console hears the steps of the start, telemetry hears whose they are', async (t: TestContext) => {
  await using machine = await createMachine({
    config: { fileLogLevelForEvents: 'Info', telemetryIntervalInSeconds: 1 },
    start: { agent: false },
  })
  // A pipe in place of the console, for the agent alone.
  const pipe = join(machine.folder, 'console')
  execFileSync('mkfifo', [pipe])
  const fd = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK)
  t.after(() => closeSync(fd))
  const words = [pipe, AGENT_UNDER_TEST, '--config', machine.configPath]
  machine.lab.spawn('unshare', ['--mount', 'sh', '-c', 'mount --bind "$0" /dev/console && exec "$@"', ...words])
  await machine.waitUntilProvisioned()
  let text = ''
  const read = () => {
    const buffer = Buffer.alloc(65536)
    try {
      text += buffer.toString('utf8', 0, readSync(fd, buffer))
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN')
    }
    return text
  }
  await waitFor(() => read().includes('Provision finished successfully'), 'the end of provisioning', read)
  const lines = text.trimEnd().split('\n')
  for (const line of lines)
    assert.match(line, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} azure-proxy-agent_\d+\.\d+\.\d+\(\d+\) - \S/)
  const messages = lines.map((line) => line.replace(/^.*?\(\d+\) - /, ''))
  for (const step of [
    /^={14} GuestProxyAgent \(\d+\.\d+\.\d+\) is starting on .+\((?:x86_64|aarch64)\), elapsed: \d+$/,
    /^Started proxy listener, ready to accept request - \d+$/,
    /^Started Redirector with eBPF maps - \d+$/,
    /^Successfully attest the key and ready to use\. - \d+$/,
    /^Provision finished successfully$/,
  ])
    assert.equal(messages.filter((message) => step.test(message)).length, 1, `${step}: ${text}`)

  const told = async () =>
    (await machine.host.readState()).telemetry
      .flatMap(({ events }) => events)
      .map((event) => [
        paramValue(event, 'TaskName'),
        paramValue(event, 'Context3'),
        paramValue(event, 'CapabilityUsed'),
      ])
      .map((parts) => parts.join(' '))
  for (const origin of [
    'start proxy_server INFO',
    'start redirector INFO',
    'start key_keeper INFO',
    'set_module_status_message KeyKeeper WARN',
    'set_module_status_message Redirector WARN',
    'set_module_status_message ProxyServer WARN',
    'set_module_status_message TelemetryLogger WARN',
    'poll_secure_channel_status key_keeper WARN',
  ])
    await waitFor(async () => (await told()).includes(origin), origin)
})

test('each line for the journal has its priority; without a level for events, lines are no telemetry', async () => {
  await using machine = await createMachine({ config: { telemetryIntervalInSeconds: 1 }, start: { agent: false } })
  // As systemd names the journal's socket in the environment of a service.
  const script = 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1) exec "$@"'
  const words = [AGENT_UNDER_TEST, '--config', machine.configPath]
  const child = machine.lab.spawn('sh', ['-c', script, 'sh', ...words])
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  await machine.waitUntilProvisioned()
  await waitFor(
    () => text.includes('Provision finished successfully'),
    'the end of provisioning',
    () => text,
  )
  for (const line of text.trimEnd().split('\n')) assert.match(line, /^<[467]>\S/)
  assert.match(text, /^<6>Start proxy listener at /m)
  assert.match(text, /^<4>Redirector status: /m)
  // Three rounds of telemetry, with requests that would have something to tell.
  const posts = async () => (await machine.host.readState()).telemetry.length
  await machine.curl(['http://168.63.129.16/machine?comp=goalstate'], NOBODY)
  await sleep(3500)
  assert.equal(await posts(), 0)
})
