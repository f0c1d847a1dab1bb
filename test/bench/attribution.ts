/**
 * What it costs to know who connected, from connect(2) to the caller: `npm run bench -- attribution`.
 *
 * In a namespace and a cgroup of its own, a listener that does what the agent does at accept, and a client of another user
 * that connects again and again. Medians of one run; compare the rows, not the runs.
 */

import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { openSync, statSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { promisify } from 'node:util'
import { monotonicNowNs } from '../../src/ebpf/records.ts'
import { type Redirector, startRedirector } from '../../src/ebpf/redirector.ts'
import { cgroupsEnv, createCgroups } from '../../src/identity/cgroup.ts'
import { createContentHashes } from '../../src/identity/content-hash.ts'
import { type IdentityEnv, identify } from '../../src/identity/identify.ts'
import { createKnownPrograms } from '../../src/identity/known-programs.ts'
import { procReader, readHostNamespaces } from '../../src/identity/process.ts'
import { createUserDirectory, userDirectoryEnv } from '../../src/identity/users.ts'
import { fdOfSocket, findNetnsCookie, isConnected } from '../../src/sys/socket.ts'
import { PYTHON } from '../kernel/agent.ts'
import { createLab, reasonToSkip } from '../kernel/lab.ts'
import { type Cell, median, renderTable, round } from './table.ts'

const CONNECTS = 3000
const LISTENER = { address: '127.0.0.1', port: 3080 }
const GUARDED = { address: '169.254.169.254', port: 80 }
const OTHER = { address: '169.254.169.254', port: 8080 }

/** Connects, waits until the other end closes, and tells the microseconds that each connect took. */
const CLIENT = `
import os, socket, sys, time, json
os.setgid(1000); os.setuid(1000)
took = []
for _ in range(int(sys.argv[3])):
    s = socket.socket()
    before = time.perf_counter_ns()
    s.connect((sys.argv[1], int(sys.argv[2])))
    took.append((time.perf_counter_ns() - before) / 1000)
    s.recv(1)
    s.close()
print(json.dumps(took))
`

interface Row {
  readonly what: string
  readonly us: readonly number[]
}

/** What the listener does with a connection: nothing, or what the agent does. */
type OnAccept = (socket: Socket) => void

async function listen(address: string, port: number, current: { onAccept: OnAccept }): Promise<Server> {
  const server = createServer((socket) => {
    current.onAccept(socket)
    socket.on('error', () => undefined)
    socket.end()
  })
  server.listen({ host: address, port, backlog: 512 })
  await once(server, 'listening')
  return server
}

async function connectMany({ address, port }: typeof GUARDED): Promise<number[]> {
  const args = ['-c', CLIENT, address, String(port), String(CONNECTS)]
  const { stdout } = await promisify(execFile)(PYTHON, args, { maxBuffer: 16 * 1024 * 1024 })
  return JSON.parse(stdout) as number[]
}

/** Times `action`, microseconds. */
function timed(series: number[], action: () => void): void {
  const startNs = process.hrtime.bigint()
  action()
  series.push(Number(process.hrtime.bigint() - startNs) / 1000)
}

/** What identification is asked for. */
interface Variant {
  readonly name: string
  readonly asksForHash: boolean
  /** Whether it may use what it knows of the process from a moment ago. */
  readonly remembers: boolean
}

const VARIANTS: readonly Variant[] = [
  { name: '', asksForHash: false, remembers: false },
  { name: ', a rule asks for the hash, which is known', asksForHash: true, remembers: false },
  { name: ', again within a second', asksForHash: false, remembers: true },
]

function identityEnv({ asksForHash, remembers }: Variant): IdentityEnv {
  return {
    proc: procReader,
    users: createUserDirectory(userDirectoryEnv(() => performance.now())),
    namespaces: readHostNamespaces(),
    cgroups: createCgroups(cgroupsEnv()),
    hashes: createContentHashes(),
    programs: remembers ? createKnownPrograms() : { find: () => undefined, remember: () => undefined },
    asksForHash: () => asksForHash,
    epochMsOf: (monotonicNs) => Date.now() - Number((monotonicNowNs() - monotonicNs) / 1_000_000n),
  }
}

/** Measures in the lab, where this script runs a second time. */
async function measure(cgroupPath: string): Promise<Row[]> {
  const current: { onAccept: OnAccept } = { onAccept: () => undefined }
  const server = await listen(LISTENER.address, LISTENER.port, current)
  const other = await listen(OTHER.address, OTHER.port, current)
  const rows: Row[] = []
  rows.push({ what: 'connect(2), no programs', us: await connectMany(OTHER) })
  using redirector = startRedirector({
    cgroupPath,
    listener: LISTENER,
    servedNetns: findNetnsCookie(fdOfSocket(server)),
  })
  redirector.reconcilePolicy([GUARDED])
  rows.push({ what: 'connect(2), programs, not guarded', us: await connectMany(OTHER) })
  rows.push(...(await measureGuarded(redirector, current, VARIANTS[0] as Variant)))
  for (const variant of VARIANTS.slice(1)) {
    rows.push(...(await measureGuarded(redirector, current, variant)).filter(({ what }) => what.startsWith('identify')))
  }
  for (const each of [server, other]) each.close()
  return rows
}

async function measureGuarded(
  redirector: Redirector,
  current: { onAccept: OnAccept },
  variant: Variant,
): Promise<Row[]> {
  const { asksForHash, name } = variant
  const env = identityEnv(variant)
  const [taking, reading, known]: [number[], number[], number[]] = [[], [], []]
  current.onAccept = (socket) => {
    const peer = { address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 }
    let record: ReturnType<Redirector['takeRecord']>
    timed(taking, () => {
      record = redirector.takeRecord(peer.address, peer.port)
      if (record === undefined || !isConnected(fdOfSocket(socket))) throw new Error('a connection is not attributed')
    })
    const startNs = process.hrtime.bigint()
    timed(reading, () => {
      void identify(record!, peer, env, { containerRootIsElevated: true }).then(({ exePath, exeSha256 }) => {
        if (exePath === undefined) throw new Error('the executable is not known')
        if (asksForHash && exeSha256 === undefined) throw new Error('the hash is not known')
        known.push(Number(process.hrtime.bigint() - startNs) / 1000)
      })
    })
  }
  // The first hash takes as long as many connects: those that come meanwhile would be too many for one user.
  if (asksForHash) await env.hashes.hash(openSync(PYTHON, 'r'), 0, Date.now())
  const connecting = await connectMany(GUARDED)
  return [
    { what: 'connect(2), redirected', us: connecting },
    { what: 'take the record', us: taking },
    { what: `identify, at once${name}`, us: reading },
    { what: `identify, to the caller${name}`, us: known },
  ]
}

function summarise({ what, us }: Row): Readonly<Record<string, Cell>> {
  const sorted = [...us].sort((a, b) => a - b)
  const p99 = sorted[Math.floor(0.99 * (sorted.length - 1))] as number
  return { what, count: sorted.length, 'median us': round(median(sorted)), 'p99 us': round(p99) }
}

function print(rows: readonly Row[]): void {
  const lines = rows.map(summarise)
  process.stdout.write(renderTable(lines))
  process.stdout.write(`${JSON.stringify({ bench: 'attribution', node: process.version, rows: lines })}\n`)
}

async function main([cgroupPath]: readonly string[]): Promise<number> {
  if (cgroupPath !== undefined && statSync(cgroupPath).isDirectory()) {
    print(await measure(cgroupPath))
    process.exit(0)
  }
  const reason = reasonToSkip()
  if (reason !== undefined) {
    process.stderr.write(`Cannot measure here: ${reason}\n`)
    return 1
  }
  await using lab = createLab()
  const args = ['--disable-warning=ExperimentalWarning', import.meta.filename, lab.cgroup]
  const { code, stdout, stderr } = await lab.run(process.execPath, args, { timeoutMs: 120_000 })
  process.stdout.write(stdout)
  process.stderr.write(stderr)
  return code ?? 1
}

process.exitCode = await main(process.argv.slice(2))
