/** What the executable tells the host about itself, and what becomes of it when the host or the disk does not take it. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { DEFAULT_VM } from '../fabric/documents.ts'
import { header } from '../fabric/fabric.ts'
import type { RecordedRequest } from '../fabric/records.ts'
import { paramValue, type TelemetryEvent } from '../fabric/telemetry.ts'
import { reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { createMachine, type Machine, type MachineOptions, waitFor } from './machine.ts'

const UPLOAD = '/machine/?comp=telemetrydata'
const GOAL_STATE = ['-H', 'x-ms-version: 2015-04-05', 'http://168.63.129.16/machine?comp=goalstate'] as const

/** Rounds of a second, and a host that takes nothing but what is exactly right. */
const startMachine = ({ config, ...options }: MachineOptions = {}) =>
  createMachine({
    hostArguments: ['--enforce', '--strict'],
    config: { fileLogLevelForEvents: 'Info', telemetryIntervalInSeconds: 1, ...config },
    ...options,
  })

async function uploads(machine: Machine): Promise<RecordedRequest[]> {
  return (await machine.host.readRequests()).filter(({ target }) => target === UPLOAD)
}

async function events(machine: Machine): Promise<TelemetryEvent[]> {
  const { telemetry } = await machine.host.readState()
  assert.deepEqual(
    telemetry.flatMap(({ problems }) => problems),
    [],
  )
  return telemetry.flatMap((post) => post.events)
}

const waitForEvent = (machine: Machine, name: string, value: string | RegExp) =>
  waitFor(
    async () => (await events(machine)).some((event) => (paramValue(event, name) ?? '').search(value) !== -1),
    `an event with ${name} ${value}`,
    () => machine.agent.output(),
    60_000 * SLOWNESS,
  )

async function metric(machine: Machine, sample: string): Promise<number> {
  const { body } = await machine.readControl('/metrics')
  const line = body.split('\n').find((each) => each.startsWith(`${sample} `))
  return Number(line?.split(' ').at(-1))
}

const eventFiles = (machine: Machine) => {
  const folder = join(machine.folder, 'events')
  return existsSync(folder) ? readdirSync(folder).sort() : []
}

const logEvent = (Message: string) => ({
  EventLevel: 'Informational',
  Message,
  Version: '9.9.9',
  TaskName: 'other',
  EventPid: '77',
  EventTid: 'x',
  OperationId: 'elsewhere',
  TimeStamp: '2026-01-02T03:04:05.678',
})

describe('telemetry', { skip: reasonToSkip(), concurrency: 2 }, () => {
  test('says who and what, signed where it must be, and says it once', async () => {
    await using machine = await startMachine()
    await waitForEvent(machine, 'Context1', 'Started proxy listener')
    const told = await events(machine)
    const common = Object.fromEntries(
      (told[0]?.params ?? []).map(({ name, value }) => [name, value] as const).slice(0, 18),
    )
    const { osVersion, ...machineFacts } = {
      osVersion: common.OSVersion,
      processors: common.Processors,
      ram: common.RAM,
      architecture: common.KeywordName,
    }
    assert.match(String(osVersion), /^Linux:[A-Z].*-\d/)
    assert.deepEqual(machineFacts, {
      processors: execFileSync('nproc', ['--all'], { encoding: 'utf8' }).trim(),
      ram: String(Math.floor(Number(/MemTotal: +(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) / 1024)),
      architecture: `{"CpuArchitecture":"${execFileSync('uname', ['-m'], { encoding: 'utf8' }).trim()}"}`,
    })
    assert.deepEqual(
      [common.TenantName, common.RoleName, common.RoleInstanceName, common.ContainerId, common.ResourceGroupName],
      [DEFAULT_VM.deploymentId, 'demo-vm', '_demo-vm', DEFAULT_VM.containerId, DEFAULT_VM.resourceGroup],
    )
    assert.deepEqual(
      [common.SubscriptionId, common.VMId, common.ImageOrigin, common.EventPid, common.ExecutionMode],
      [DEFAULT_VM.subscriptionId, DEFAULT_VM.vmId, '1', String(machine.agent.pid), 'ProxyAgent'],
    )
    const start = told.find((event) => paramValue(event, 'Context1')?.includes('Started proxy listener'))
    assert.deepEqual(
      ['TaskName', 'Context3', 'CapabilityUsed'].map((name) => start && paramValue(start, name)),
      ['start', 'proxy_server', 'INFO'],
    )

    const requests = await machine.host.readRequests()
    const asked = requests.filter(({ target }) => /goalstate|sharedConfig|metadata\/instance/.test(target))
    assert.deepEqual(
      asked.map(({ signature, status, isRoot }) => [signature, status, isRoot]),
      asked.map(() => ['right', 200, true]),
    )
    assert.equal(asked.length, 3, 'the host is asked once who we are')
    const [upload] = await uploads(machine)
    assert.deepEqual(
      (upload?.rawHeaders ?? [])
        .filter((_, at) => at % 2 === 0)
        .map((name) => name.toLowerCase())
        .sort(),
      ['content-length', 'content-type', 'host', 'x-ms-azure-host-claims', 'x-ms-azure-host-date', 'x-ms-version'],
    )
    assert.equal(header(upload as RecordedRequest, 'content-type'), 'text/xml; charset=utf-8')

    // Nothing happens from here on but polls, one a second.
    const texts = (await events(machine)).map((event) => paramValue(event, 'Context1'))
    assert.equal(new Set(texts).size, texts.length, `something is told twice: ${texts.join('\n')}`)
    await sleep(4000)
    const before = (await events(machine)).length
    const polls = async () =>
      (await machine.host.readRequests()).filter(({ target }) => target === '/secure-channel/status').length
    const polledBefore = await polls()
    await waitFor(async () => (await polls()) >= polledBefore + 10, 'ten more polls')
    assert.equal((await events(machine)).length, before)
    assert.equal(await metric(machine, 'azure_proxy_agent_telemetry_events_sent_total'), before)
    assert.ok(before < 40, `${before} events for a start`)
  })

  test('is tried again after 500 and silence, dropped after 400, and nobody waits for it', async () => {
    await using machine = await startMachine()
    await waitForEvent(machine, 'Context1', 'Started proxy listener')
    const seen = (await uploads(machine)).length
    await machine.host.addFault({
      targetIncludes: 'comp=telemetrydata',
      times: 1,
      fault: { kind: 'status', status: 500 },
    })
    await machine.host.addFault({
      targetIncludes: 'comp=telemetrydata',
      skip: 1,
      times: 1,
      fault: { kind: 'never-answer' },
    })
    // A denial is news.
    assert.equal((await machine.curl(GOAL_STATE, { uid: 1234, gid: 1234 })).status, 403)
    const { status } = await machine.curl(GOAL_STATE)
    assert.equal(status, 200)
    await waitForEvent(machine, 'Context1', /Request denied/)
    const tries = (await uploads(machine)).slice(seen)
    assert.deepEqual(
      tries.slice(0, 3).map((each) => each.status),
      [500, 0, 200],
    )
    assert.equal(new Set(tries.slice(0, 3).map(({ bodySha256 }) => bodySha256)).size, 1, 'the same payload each time')
    assert.ok((tries[1] as RecordedRequest).atMs - (tries[0] as RecordedRequest).atMs >= 4900, 'not at once')

    await machine.host.addFault({
      targetIncludes: 'comp=telemetrydata',
      times: 1,
      fault: { kind: 'status', status: 400 },
    })
    const later = (await uploads(machine)).length
    assert.equal((await machine.curl(['http://168.63.129.16:32526/vmSettings'], { uid: 1234, gid: 1234 })).status, 403)
    await waitFor(
      async () => (await metric(machine, 'azure_proxy_agent_telemetry_events_dropped_total{reason="refused"}')) > 0,
      'the drop to be counted',
    )
    assert.deepEqual(
      (await uploads(machine)).slice(later, later + 1).map((each) => each.status),
      [400],
    )
    assert.equal(await metric(machine, 'azure_proxy_agent_telemetry_posts_total{result="refused"}'), 1)
    assert.equal(await metric(machine, 'azure_proxy_agent_telemetry_posts_total{result="failed"}'), 2)
  })

  test('waits in files from one run to the next', async () => {
    await using machine = await startMachine({ config: { telemetryIntervalInSeconds: 3600 } })
    const before = eventFiles(machine)
    machine.agent.kill('SIGTERM')
    assert.equal((await machine.agent.ended).code, 0)
    assert.deepEqual(before, [])
    const [name = '', ...more] = eventFiles(machine)
    assert.match(name, /^\d{19}\.json$/)
    assert.deepEqual(more, [])
    const folder = join(machine.folder, 'events')
    assert.deepEqual([statSync(folder).mode & 0o777, statSync(join(folder, name)).mode & 0o777], [0o750, 0o640])
    const kept = JSON.parse(readFileSync(join(folder, name), 'utf8')) as Record<string, string>[]
    assert.deepEqual(Object.keys(kept[0] ?? {}), Object.keys(logEvent('')))
    assert.equal(kept[0]?.EventPid, String(machine.agent.pid))

    machine.writeConfig({ telemetryIntervalInSeconds: 1 })
    machine.startAgent()
    await waitForEvent(machine, 'EventPid', String(kept[0]?.EventPid))
    await waitFor(() => eventFiles(machine).length === 0, 'the file to go')
    const old = async () =>
      (await events(machine))
        .filter((event) => paramValue(event, 'EventPid') === kept[0]?.EventPid)
        .map((event) => paramValue(event, 'Context1'))
    await waitFor(async () => (await old()).length >= kept.length, 'all events of the earlier run')
    assert.deepEqual(await old(), kept.map(({ Message }) => Message).reverse())
  })

  test('takes the files of others, as far as they are what they should be', async () => {
    await using machine = await startMachine({ start: { agent: false } })
    const folder = join(machine.folder, 'events')
    mkdirSync(folder)
    const odd = 'a]]>b <&\'"> \u0000\u0008\ufffe\ud800 \u{1f600} pwd=hunter2'
    const large = Array.from({ length: 5 }, (_, number) => logEvent(`${number} ${'"'.repeat(5000)}`))
    writeFileSync(join(folder, '1.json'), JSON.stringify([logEvent(odd), logEvent('plain')]))
    writeFileSync(join(folder, '2.json'), JSON.stringify(large))
    writeFileSync(join(folder, '3.json'), '[{"EventLevel": 1}]')
    writeFileSync(join(folder, '4.json'), '[{"half":')
    writeFileSync(join(folder, '5.json'), Buffer.alloc(11 * 1024 * 1024, ' '))
    writeFileSync(join(folder, '6.json'), JSON.stringify([{ ...logEvent('x'), TaskName: '&'.repeat(20_000) }]))
    symlinkSync('/etc/shadow', join(folder, '7.json'))
    writeFileSync(join(folder, 'precious.json'), 'kept')
    const status = { name: 'other', version: '2', is_internal: false, extension_type: 'Test' }
    const operation = { operation_success: false, operation: 'o', task_name: 't', message: 'm', duration: -1 }
    const extension = {
      extension: status,
      operation_status: operation,
      event_pid: '1',
      event_tid: '2',
      time_stamp: 'now',
    }
    writeFileSync(join(folder, 'extension_1.json'), JSON.stringify(extension))
    // The half one is of yesterday: nobody is writing it any more.
    utimesSync(join(folder, '4.json'), 1, 1)
    machine.startAgent()
    await machine.waitUntilProvisioned()
    await waitForEvent(machine, 'Name', 'other')
    await waitForEvent(machine, 'Context1', /^0 "/)
    await waitFor(
      () => eventFiles(machine).length === 2,
      'the files to go',
      () => eventFiles(machine).join(' '),
    )
    assert.deepEqual(eventFiles(machine), ['7.json', 'precious.json'])

    const told = await events(machine)
    const of = (pattern: RegExp) => told.find((event) => pattern.test(paramValue(event, 'Context1') ?? ''))
    assert.equal(paramValue(of(/^a]]>b/)!, 'Context1'), `a]]>b <&'"> \ufffd\ufffd\ufffd\ufffd \u{1f600} pwd=[REDACTED]`)
    assert.deepEqual(
      ['CapabilityUsed', 'GAVersion', 'EventTid', 'Context3'].map((name) => paramValue(of(/^plain$/)!, name)),
      ['Informational', '9.9.9', '0', 'elsewhere'],
    )
    assert.equal(Buffer.byteLength(paramValue(of(/^0 "/)!, 'Context1') ?? ''), 4096)
    const duration = told.flatMap((event) => paramValue(event, 'Duration') ?? [])
    assert.deepEqual(duration, ['18446744073709551615'])
    for (const upload of await uploads(machine)) assert.ok(upload.bodySizeBytes < 65_536, `${upload.bodySizeBytes}`)
    const dropped = (reason: string) =>
      metric(machine, `azure_proxy_agent_telemetry_events_dropped_total{reason="${reason}"}`)
    await waitFor(async () => (await dropped('too_large')) === 2, 'both that are too large to be counted')
    assert.equal(await dropped('invalid'), 2)
  })

  test('without a disk for files, or a folder, costs nothing but telemetry', async () => {
    await using machine = await startMachine({ start: { agent: false }, config: { telemetryIntervalInSeconds: 3600 } })
    const folder = join(machine.folder, 'events')
    mkdirSync(folder)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8k,mode=0700', 'apa-test', folder])
    try {
      writeFileSync(join(folder, 'filler'), Buffer.alloc(8192).subarray(0, 4096))
      machine.startAgent()
      await machine.waitUntilProvisioned()
      assert.equal((await machine.curl(GOAL_STATE)).status, 200)
      machine.agent.kill('SIGTERM')
      assert.equal((await machine.agent.ended).code, 0)
      assert.match(machine.agent.output(), /Cannot write telemetry events to .*: ENOSPC/)
      assert.match(machine.agent.output(), /\d+ telemetry events are lost: the disk did not take them/)
      assert.deepEqual(eventFiles(machine), ['filler'])
    } finally {
      execFileSync('umount', ['--lazy', folder])
    }
    rmSync(folder, { recursive: true })
    machine.startAgent()
    await machine.waitUntilProvisioned()
    rmSync(folder, { recursive: true, force: true })
    machine.agent.kill('SIGTERM')
    assert.equal((await machine.agent.ended).code, 0)
    assert.equal(eventFiles(machine).length, 1, 'the folder is made again')
  })
})
