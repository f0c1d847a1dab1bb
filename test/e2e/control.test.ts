/** What root can ask the running executable: over its socket, and with the status command. */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, lstatSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import type { ChannelRules } from '../fabric/channel.ts'
import { reasonToSkip } from '../kernel/lab.ts'
import { lintMetrics } from '../telemetry/lint-metrics.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, waitFor } from './machine.ts'

const IMDS = 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'

const ALICE = { uid: 1000, gid: 1000 }

function status(machine: Machine, ...words: string[]) {
  const result = spawnSync(AGENT_UNDER_TEST, ['status', '--config', machine.configPath, ...words], { encoding: 'utf8' })
  return { code: result.status, stdout: result.stdout, stderr: result.stderr }
}

async function waitUntilHealthy(machine: Machine): Promise<void> {
  await waitFor(
    async () => (await machine.readControl('/healthz')).status === 200,
    'health',
    () => machine.agent.output(),
  )
}

/** Alice may ask for nothing at IMDS. */
const CLOSED: ChannelRules = {
  wireserver: { id: 'open', mode: 'enforce', defaultAccess: 'allow' },
  imds: { id: 'closed', mode: 'enforce', defaultAccess: 'deny' },
}

describe('the control socket', { skip: reasonToSkip() }, () => {
  test("is root's alone, is small, and goes with the agent", async () => {
    await using machine = await createMachine()
    const { mode, uid } = lstatSync(machine.controlSocket)
    assert.deepEqual([mode & 0o777, uid], [0o600, 0])
    const asAlice = await machine.curl(['--unix-socket', machine.controlSocket, 'http://localhost/status'], ALICE)
    assert.equal(asAlice.status, 0)
    const rows: readonly (readonly [status: number, path: string, ...args: string[]])[] = [
      [404, '/'],
      [404, '/status/'],
      [404, '/status?x'],
      [405, '/status', '-X', 'DELETE'],
      [413, '/status', '-d', 'x'],
      [200, '/status', '--head'],
    ]
    for (const [expected, path, ...args] of rows)
      assert.equal((await machine.readControl(path, args)).status, expected, [path, ...args].join(' '))
    assert.equal((await machine.readControl('/status', ['-H', `x: ${'y'.repeat(5000)}`])).status, 0)
    machine.agent.kill('SIGTERM')
    assert.equal((await machine.agent.ended).code, 0)
    assert.equal(existsSync(machine.controlSocket), false)
  })

  test('refuses the root of another user namespace, to whom the file belongs just the same', async () => {
    await using machine = await createMachine()
    const ask = `curl -s -o /dev/null -w '%{http_code}' --unix-socket ${machine.controlSocket} http://localhost/healthz`
    const here = await machine.lab.run('/bin/sh', ['-c', ask])
    const there = await machine.lab.run('unshare', ['--user', '--map-root-user', '/bin/sh', '-c', ask])
    assert.deepEqual([here.stdout, there.stdout], ['200', '403'], there.stderr)
  })

  test('replaces what a killed agent left, and nothing else', async () => {
    await using machine = await createMachine()
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    assert.ok(existsSync(machine.controlSocket))
    machine.startAgent()
    await waitFor(
      async () => (await machine.readControl('/status')).status === 200,
      'the socket',
      () => machine.agent.output(),
    )
    const first = machine.agent
    first.kill('SIGTERM')
    await first.ended

    const other = createServer().listen(machine.controlSocket)
    machine.startAgent()
    await waitFor(() => machine.agent.output().includes('another process listens there'), 'the complaint')
    other.close()
    machine.agent.kill('SIGTERM')
    await machine.agent.ended
    writeFileSync(machine.controlSocket, 'precious')
    machine.startAgent()
    await waitFor(() => machine.agent.output().includes('something that is no socket is there'), 'the complaint')
    assert.equal(readFileSync(machine.controlSocket, 'utf8'), 'precious')
  })
})

describe('the status command', { skip: reasonToSkip() }, () => {
  test('shows a healthy service, and the last denials with their reasons', async () => {
    await using machine = await createMachine({ rules: CLOSED })
    await waitUntilHealthy(machine)
    const denied = await machine.curl(['-H', 'Metadata: true', '-H', 'Authorization: Bearer sesame', IMDS], ALICE)
    assert.equal(denied.status, 403)
    const { code, stdout, stderr } = status(machine)
    assert.equal(code, 0, stdout + stderr)
    for (const part of [
      /^health +healthy, guarding: WireServer /m,
      /^self-check +passed \d+ s ago$/m,
      /^key +[0-9a-f]{8}-[0-9a-f-]{27}, /m,
      /^rules +WireServer .*, IMDS "closed", HostGA /m,
      /^telemetry +\d+ events sent, \d+ waiting$/m,
      /^requests .* 1 denied, 0 connections without a caller$/m,
      /GET \/metadata\/instance\?api-version=2021-02-01 \(imds\)/,
      /forbidden: no privilege matches and the default access is deny/,
    ])
      assert.match(stdout, part)
    assert.doesNotMatch(stdout, /sesame/)

    const json = JSON.parse(status(machine, '--json').stdout) as {
      proxyAgentStatus: { status: string }
      lastDenials: { userName: string; reason: string }[]
      redirection: { policy: string[]; counters: Record<string, number> }
    }
    assert.equal(json.proxyAgentStatus.status, 'SUCCESS')
    assert.equal(json.lastDenials.length, 1)
    assert.equal(json.redirection.policy.includes('169.254.169.254:80'), true)
    assert.ok((json.redirection.counters.redirected ?? 0) >= 1)
  })

  test('says clearly that the service is not running, or that one is not root', async () => {
    await using machine = await createMachine({ start: { host: false, agent: false } })
    const off = status(machine)
    assert.equal(off.code, 1)
    assert.match(off.stderr, /^azure-proxy-agent: The service is not running: there is no socket at /)
    machine.startAgent()
    await waitFor(
      () => existsSync(machine.controlSocket),
      'the socket',
      () => machine.agent.output(),
    )
    const starting = status(machine)
    assert.equal(starting.code, 1)
    assert.match(starting.stdout, /^health +NOT HEALTHY, /)
    const health = await machine.readControl('/healthz')
    assert.equal(health.status, 503)
    assert.match(health.body, /^[^\n]+\n$/)
    const words = ['status', '--socket', machine.controlSocket]
    spawnSync('chmod', ['0711', machine.folder])
    const asAlice = await machine.lab.run(AGENT_UNDER_TEST, words, ALICE)
    assert.equal(asAlice.code, 1)
    assert.match(asAlice.stderr, /Only root may ask/)
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    assert.match(status(machine).stderr, /The service is not running: nobody listens at /)
    assert.equal(status(machine, '--bogus').code, 2)
  })
})

describe('metrics', { skip: reasonToSkip() }, () => {
  test('are a page that a linter of monitoring systems takes, and count what happened', async () => {
    await using machine = await createMachine({ rules: CLOSED })
    await waitUntilHealthy(machine)
    assert.equal((await machine.curl(['-H', 'Metadata: true', IMDS], ALICE)).status, 403)
    assert.equal(
      (await machine.curl(['http://168.63.129.16/machine?comp=goalstate', '-H', 'x-ms-version: 2012-11-30'])).status,
      200,
    )
    await machine.curl(['http://127.0.0.1:3080/metadata/instance'])
    const { status: code, headers, body } = await machine.readControl('/metrics')
    assert.equal(code, 200)
    assert.equal(headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
    assert.deepEqual(lintMetrics(body), [])
    for (const line of [
      /^azure_proxy_agent_build_info\{version="[\d.]+",runtime="v26[\d.]+",arch="(x64|arm64)"\} 1$/m,
      /^azure_proxy_agent_healthy 1$/m,
      /^azure_proxy_agent_self_check_passed 1$/m,
      /^azure_proxy_agent_decisions_total\{endpoint="imds",verdict="forbidden",reason="default-access"\} 1$/m,
      /^azure_proxy_agent_request_duration_seconds_count\{endpoint="imds"\} 1$/m,
      /^azure_proxy_agent_host_response_duration_seconds_count\{endpoint="wireserver"\} 1$/m,
      /^azure_proxy_agent_attribution_failures_total\{reason="no_record"\} 1$/m,
      /^azure_proxy_agent_channel_mode\{endpoint="imds",mode="enforce"\} 1$/m,
      /^azure_proxy_agent_last_good_poll_age_seconds \d/m,
      /^azure_proxy_agent_key_age_seconds \d/m,
      /^azure_proxy_agent_kernel_events_total\{event="redirected"\} [1-9]/m,
      /^azure_proxy_agent_connection_records 0$/m,
      /^azure_proxy_agent_log_entries_lost_total\{log="agent"\} 0$/m,
      /^process_resident_memory_bytes [1-9]/m,
    ])
      assert.match(body, line)
  })

  test('go to a file for node_exporter, which tells also that the service is gone', async () => {
    await using machine = await createMachine({ start: { host: false } })
    await waitFor(
      () => existsSync(machine.controlSocket),
      'the socket',
      () => machine.agent.output(),
    )
    const file = join(machine.folder, 'agent.prom')
    assert.equal(status(machine, '--textfile', file).code, 0)
    assert.equal(statSync(file).mode & 0o777, 0o644)
    assert.match(readFileSync(file, 'utf8'), /^azure_proxy_agent_up 1$/m)
    assert.deepEqual(lintMetrics(readFileSync(file, 'utf8')), [])
    machine.agent.kill('SIGTERM')
    await machine.agent.ended
    assert.equal(status(machine, '--textfile', file).code, 1)
    const text = readFileSync(file, 'utf8')
    assert.match(text, /^azure_proxy_agent_up 0$/m)
    assert.equal(text.split('\n').length, 4)
    assert.equal(status(machine, '--textfile', '/nowhere/agent.prom').code, 1)
  })
})
