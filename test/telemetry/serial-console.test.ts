import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { createSerialConsole } from '../../src/telemetry/serial-console.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const nowMs = () => Date.UTC(2026, 0, 2, 3, 4, 5, 678)

const consoleAt = (path: string, losses: string[] = []) =>
  createSerialConsole({ version: '1.2.3', nowMs, path, onLoss: (message) => void losses.push(message) })

function device(t: TestContext): string {
  const path = join(temporaryFolder(t), 'console')
  writeFileSync(path, '')
  return path
}

async function contentOf(path: string): Promise<string> {
  for (let i = 0; i < 200; i++) {
    const text = readFileSync(path, 'utf8')
    if (text !== '') return text
    await delay(5)
  }
  return assert.fail('nothing was written')
}

test('the console shows time, version, process and message on one line', async (t) => {
  const path = device(t)
  consoleAt(path)('a message')
  assert.equal(await contentOf(path), `2026-01-02T03:04:05.678 azure-proxy-agent_1.2.3(${process.pid}) - a message\n`)
})

test('the console shows several lines as one, and no secret', async (t) => {
  const path = device(t)
  consoleAt(path)('a - x\r\nb - sig=SECRET&y')
  const text = await contentOf(path)
  assert.match(text, / - a - x\\x0d\\x0ab - sig=\[REDACTED\]&y\n$/)
})

test('a console that is not there is told of, and has no other effect', async (t) => {
  const lost: string[] = []
  consoleAt(join(temporaryFolder(t), 'none'), lost)('lost')
  for (let i = 0; lost.length === 0; i++) {
    assert.ok(i < 200)
    await delay(5)
  }
  assert.deepEqual(lost, ['Failed to open serial console: No such file or directory (os error 2)'])
})

test('a console that takes nothing loses the message and holds nobody up', async (t) => {
  const path = join(temporaryFolder(t), 'fifo')
  execFileSync('mkfifo', [path])
  const reader = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  t.after(() => closeSync(reader))
  const lost: string[] = []
  const tell = consoleAt(path, lost)
  const startedAtMs = performance.now()
  // More than a pipe holds.
  for (let i = 0; i < 500; i++) tell('x'.repeat(1000))
  for (let i = 0; lost.length === 0; i++) {
    assert.ok(i < 400)
    await delay(5)
  }
  assert.match(
    String(lost[0]),
    /^Failed to write to serial console: x{1000} \(Resource temporarily unavailable \(os error 11\)\)$/,
  )
  assert.ok(performance.now() - startedAtMs < 2000)
})
