import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseArguments, UsageError } from './arguments.ts'
import { FabricClient } from './control-client.ts'
import { startControl } from './control-server.ts'
import { startFabric } from './fabric.ts'
import { exchange, requestBytes } from './raw-client.ts'

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url))
const VERSIONS = requestBytes({
  method: 'GET',
  target: '/?comp=versions',
  headers: [
    ['Host', 'h'],
    ['Connection', 'close'],
  ],
})

let folder: string
before(() => {
  folder = mkdtempSync(join(tmpdir(), `apa-fabric-${process.pid}-`))
})
after(() => rmSync(folder, { recursive: true }))

/** Starts main.ts and waits for its ready line; `output` grows afterwards. */
async function startMain(
  ...args: string[]
): Promise<{ child: ChildProcess; output: () => string; ended: Promise<number | null> }> {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  const ended = new Promise<number | null>((resolve) => child.on('close', (code) => resolve(code)))
  await new Promise<void>((resolve, reject) => {
    const take = (piece: Buffer) => {
      text += piece.toString()
      if (text.includes('fabric: ready\n')) resolve()
    }
    child.stdout!.on('data', take)
    child.stderr!.on('data', take)
    void ended.then((code) => reject(new Error(`ended with ${code}: ${text}`)))
  })
  return { child, output: () => text, ended }
}

test('main.ts runs by itself, is steered over a unix socket and stops on a signal', async () => {
  const path = join(folder, 'control')
  const rules = join(folder, 'rules.json')
  writeFileSync(rules, JSON.stringify({ imds: { defaultAccess: 'deny', mode: 'audit', id: 'from-file' } }))
  const { child, output, ended } = await startMain('--control', path, '--rules', rules)
  try {
    assert.equal(statSync(path).mode & 0o777, 0o600)
    const client = new FabricClient({ path })
    const state = await client.readState()
    assert.deepEqual([state.channel, state.modes.imds, state.options.rules?.imds?.id], ['no-key', 'audit', 'from-file'])
    assert.match(output(), new RegExp(`^fabric: imds 127\\.0\\.0\\.1:${state.addresses.imds.port}$`, 'm'))

    const waiting = client.waitForRequest((request) => request.target === '/?comp=versions')
    await exchange(state.addresses.wireserver, VERSIONS)
    const { signature, status, body } = await waiting
    assert.deepEqual([signature, status, body], ['absent', 200, Buffer.alloc(0)])
    assert.match(output(), /^wireserver GET \/\?comp=versions 200 signature=absent decision=served$/m)

    await client.addFault({ endpoint: 'wireserver', times: 1, fault: { kind: 'status', status: 503, retryAfterS: 1 } })
    assert.equal((await exchange(state.addresses.wireserver, VERSIONS)).status, 503)
    assert.equal((await exchange(state.addresses.wireserver, VERSIONS)).status, 200)
    assert.equal((await client.readRequests()).length, 3)
    await client.clearRequests()
    assert.deepEqual(await client.readRequests(), [])
  } finally {
    child.kill('SIGTERM')
  }
  assert.equal(await ended, 0)
})

test('FabricClient changes what the object in the same process would change', async () => {
  const fabric = await startFabric()
  const control = await startControl(fabric, { port: 0 })
  const client = new FabricClient(control.place)
  try {
    await client.setRules({ wireserver: { defaultAccess: 'allow', mode: 'enforce' } })
    assert.deepEqual(fabric.readState().modes, { wireserver: 'enforce', hostga: 'enforce', imds: 'disabled' })
    await client.setHostModes({ imds: 'enforce' })
    assert.equal(fabric.readState().modes.imds, 'enforce')
    await client.setHostModes(undefined)
    assert.equal(fabric.readState().modes.imds, 'disabled')
    await client.setState('Wireserver')
    assert.equal(fabric.readState().modes.imds, 'audit')
    await client.setChannel({ protocol: '2.0', enabled: false })
    assert.equal(fabric.readState().modes.wireserver, 'disabled')
    await client.latchKey({ guid: 'g', keyHex: 'AB'.repeat(32) })
    assert.equal(fabric.readState().latchedGuid, 'g')
    await client.rotateKey()
    assert.deepEqual([fabric.readState().channel, fabric.readState().keyIncarnationId], ['no-key', 2])
    const id = await client.addFault({ fault: { kind: 'close' } })
    await client.removeFault(id)
    await client.addFault({ fault: { kind: 'close' } })
    await client.clearFaults()
    assert.deepEqual(fabric.readState().faults, [])
    await client.setClockSkew(5000)
    await client.setListener('imds', 'refuse')
    await client.setDocuments({ vmName: 'x' })
    await client.raiseIncarnation()
    await client.setScheduledEvents([])
    const state = await client.readState()
    assert.deepEqual([state.clockSkewMs, state.listeners.imds, state.goalStateIncarnation], [5000, 'refuse', 2])
    await assert.rejects(
      client.waitForRequest(() => true, 30),
      /none came within 30 ms/,
    )
  } finally {
    await control.close()
    await fabric.close()
  }
})

test('FabricClient pages through more requests than one answer holds', async () => {
  const fabric = await startFabric()
  const control = await startControl(fabric, { port: 0 })
  try {
    const one = requestBytes({ method: 'GET', target: '/?comp=versions', headers: [['Host', 'h']] })
    const bytes = Buffer.concat([...Array.from({ length: 1200 }, () => one), VERSIONS])
    await exchange(fabric.addresses.wireserver, bytes)
    const client = new FabricClient(control.place)
    assert.equal((await client.readRequests()).length, 1201)
    assert.equal((await client.readRequests(1200)).length, 1)
    assert.equal((await client.waitForRequest((request) => request.seq === 1201)).nthOnConnection, 1201)
  } finally {
    await control.close()
    await fabric.close()
  }
})

test('the control answers nonsense with a reason and calls nothing else', async () => {
  const fabric = await startFabric()
  const control = await startControl(fabric, { port: 0 })
  const address = { host: '127.0.0.1', port: 'port' in control.place ? control.place.port : 0 }
  const post = (body: string) =>
    exchange(
      address,
      requestBytes({
        method: 'POST',
        target: '/control',
        headers: [
          ['Host', 'h'],
          ['Connection', 'close'],
          ['Content-Length', String(body.length)],
        ],
        body,
      }),
    )
  try {
    for (const body of ['{', '{"method":"close"}', '{"method":"constructor"}', '{"method":"rotateKey","args":1}']) {
      const reply = await post(body)
      assert.equal(reply.status, 400)
      assert.match(JSON.parse(reply.body).error, /./)
    }
    assert.equal((await post('{"method":"rotateKey"}')).status, 200)
    assert.equal((await exchange(address, VERSIONS)).status, 404)
  } finally {
    await control.close()
    await fabric.close()
  }
})

test('parseArguments() reads every option', () => {
  const args = parseArguments(
    '--listen real --imds 127.0.0.1:8080 --protocol 1.0 --level Wireserver --enforce --strict --skew=-60000 --rate-limit --records 5 --control 0 --quiet'.split(
      ' ',
    ),
  )
  assert.deepEqual(args.options, {
    wireserver: { host: '168.63.129.16', port: 80 },
    hostga: { host: '168.63.129.16', port: 32526 },
    imds: { host: '127.0.0.1', port: 8080 },
    protocol: '1.0',
    level: 'Wireserver',
    enforce: true,
    strict: true,
    rateLimit: true,
    clockSkewMs: -60_000,
    records: { records: 5 },
  })
  assert.deepEqual([args.control, args.isQuiet, args.wantsHelp], [{ port: 0 }, true, false])
})

const MISTAKES: [situation: string, argv: string, message: RegExp][] = [
  ['an unknown option', '--nothing', /--nothing: not an option/],
  ['a word', 'start', /there are only options/],
  ['a choice that is none', '--protocol 3', /choose 1\.0 or 2\.0/],
  ['a missing value', '--rules', /takes one value/],
  ['an option twice', '--control a --control b', /takes one value/],
  ['an address without a port', '--imds 127.0.0.1', /a colon and a port/],
  ['a key that is too short', '--latched-key 9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf:AB', /64 hexadecimal digits/],
  ['a skew in words', '--skew hour', /whole number/],
]
for (const [situation, argv, message] of MISTAKES) {
  test(`parseArguments() refuses ${situation}`, () => {
    assert.throws(
      () => parseArguments(argv.split(' ')),
      (error: unknown) => error instanceof UsageError && message.test(error.message),
    )
  })
}

test('main.ts explains a mistake and exits with 2', async () => {
  const child = spawn(process.execPath, [MAIN, '--nothing'], { stdio: ['ignore', 'ignore', 'pipe'] })
  let text = ''
  child.stderr.on('data', (piece: Buffer) => {
    text += piece.toString()
  })
  const code = await new Promise((resolve) => child.on('close', resolve))
  assert.equal(code, 2)
  assert.match(text, /^fabric: Cannot use --nothing: not an option\nUsage: /)
})
