/**
 * Stands for the agent in a lab: a listener that answers with the record of each connection, and a redirector that is
 * steered by lines of JSON. Run inside the namespace, where the listener is.
 *
 *     argv[2]   JSON of `AgentSetup`
 *     stdin     {"do": "policy", "entries": […]} and so on, see `COMMANDS`
 *     stdout    one line of JSON per command, and `{"ready":true}` or `{"failed":…}` first
 */

import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { createServer, get, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import type { InetAddress } from '../../src/base/endpoints.ts'
import { REAL_REDIRECTOR_ENV, type RedirectorEnv } from '../../src/ebpf/kernel-view.ts'
import type { KernelProbes, Probe } from '../../src/ebpf/probe.ts'
import type { ConnectionRecord } from '../../src/ebpf/records.ts'
import { monotonicNowNs } from '../../src/ebpf/records.ts'
import { type ContainersPolicy, startRedirector } from '../../src/ebpf/redirector.ts'
import { openNetworkNamespace } from '../../src/sys/network-namespace.ts'
import { fdOfSocket, findNetnsCookie, isConnected } from '../../src/sys/socket.ts'

/** What the kernel is made to lack, besides where to attach. */
export interface AgentSetup {
  readonly cgroupPath: string
  /** What other network namespaces get; `serve` opens listeners there when they are asked for, after `serveAfterMs`. */
  readonly containers?: ContainersPolicy
  readonly serveAfterMs?: number
  readonly without?: readonly (keyof KernelProbes | 'btf' | 'run' | 'netnsCookie')[]
}

type Command =
  | { do: 'policy'; entries: InetAddress[] }
  | { do: 'taking'; on: boolean }
  | { do: 'take'; address: string; port: number }
  | { do: 'connect'; address: string; port: number }
  | { do: 'child'; file: string; args: string[] }
  | { do: 'stall'; path: string }
  | { do: 'unserve' }
  | { do: 'accepted' | 'closeListener' }
  | { do: 'readPolicy' | 'counters' | 'features' | 'attached' | 'detach' | 'self' }

const setup = JSON.parse(process.argv[2]!) as AgentSetup
let taking = true
/** File whose appearance ends the next stall, between asking for the peer and taking its record; empty: none. */
let stallPath = ''
const records = new WeakMap<Socket, Taken>()
/** All connections since the last time somebody asked, in the order of accepting. */
const accepted: Accepted[] = []

interface Taken {
  readonly record: ConnectionRecord | undefined
  readonly ageNs: bigint | undefined
  readonly peer: string
}

interface Accepted {
  readonly peerPort: number | undefined
  /** Whether it was, after its record was taken. */
  readonly connected: boolean
  readonly record: ConnectionRecord | undefined
}

const served = new Map<bigint, Server>()
const server = createServer((request, response) => {
  response.end(stringify({ who: 'listener', ...records.get(request.socket) }))
})
server.listen({ host: '127.0.0.1', port: 3080, backlog: 512 })
await once(server, 'listening')

const redirector = start()
server.on('connection', (socket) => accept(socket))
redirector.watchAsks(() => setTimeout(serveAsked, setup.serveAfterMs ?? 0))

function accept(socket: Socket, netns?: bigint): void {
  // Without a peer it ended in the queue, and there is nothing to look up.
  const { remoteAddress = '', remotePort } = socket
  stall()
  const record =
    taking && remotePort !== undefined ? redirector.takeRecord(remoteAddress, remotePort, netns) : undefined
  accepted.push({ peerPort: remotePort, connected: isConnected(fdOfSocket(socket)), record })
  const ageNs = record && monotonicNowNs() - record.recordedAtNs
  records.set(socket, { record, ageNs, peer: remoteAddress })
}

function serveAsked(): void {
  for (const { netnsCookie, pid } of redirector.readAsks(100)) {
    try {
      using namespace = openNetworkNamespace(`/proc/${pid}/ns/net`)
      const { number: fd } = namespace.listen([127, 0, 0, 1], 3080, 512, netnsCookie)
      const listener = createServer((request, response) => void server.emit('request', request, response))
      listener.on('connection', (socket) => accept(socket, netnsCookie))
      listener.listen({ fd })
      served.set(netnsCookie, listener)
      redirector.setServed(netnsCookie, true)
      redirector.withdraw(netnsCookie)
    } catch {
      redirector.refuse(netnsCookie)
    }
  }
}

print({ ready: true })

for await (const line of createInterface({ input: process.stdin })) {
  try {
    print({ answer: await obey(JSON.parse(line) as Command) })
  } catch (error) {
    print({ error: String(error) })
  }
}
process.exit(0)

function start() {
  try {
    const lacksCookie = setup.without?.includes('netnsCookie')
    const servedNetns = lacksCookie ? undefined : findNetnsCookie(fdOfSocket(server))
    const listener = { address: '127.0.0.1', port: 3080 }
    const { cgroupPath, containers } = setup
    return startRedirector({ cgroupPath, listener, servedNetns, ...(containers && { containers }) }, environment())
  } catch (error) {
    print({ failed: String(error) })
    throw error
  }
}

function environment(): RedirectorEnv {
  const without = new Set<string>(setup.without)
  const no: Probe = { answer: 'no', because: 'the test says so' }
  const probes = Object.entries(REAL_REDIRECTOR_ENV.probes).map(([name, probe]) => [
    name,
    without.has(name) ? () => no : probe,
  ])
  return {
    ...REAL_REDIRECTOR_ENV,
    probes: Object.fromEntries(probes) as KernelProbes,
    ...(without.has('btf') ? { readBtf: () => undefined } : {}),
    ...(without.has('run') ? { ownIdentityWays: ['connect' as const] } : {}),
  }
}

async function obey(command: Command): Promise<unknown> {
  switch (command.do) {
    case 'policy':
      return redirector.reconcilePolicy(command.entries)
    case 'taking':
      taking = command.on
      return taking
    case 'take':
      return redirector.takeRecord(command.address, command.port)
    case 'stall':
      stallPath = command.path
      return stallPath
    case 'accepted':
      return accepted.splice(0)
    case 'unserve':
      for (const [netns, listener] of served) {
        redirector.setServed(netns, false)
        listener.close()
      }
      return void served.clear()
    case 'closeListener':
      return void server.close()
    case 'connect':
      return JSON.parse(await fetchText(command.address, command.port))
    case 'child':
      return JSON.parse((await promisify(execFile)(command.file, command.args)).stdout)
    case 'readPolicy':
      return redirector.readPolicy()
    case 'counters':
      return redirector.counters()
    case 'features':
      return redirector.features
    case 'attached':
      return redirector.isAttached()
    case 'detach':
      return redirector.detach()
    case 'self':
      return { pid: process.pid, pidNamespace: statSync('/proc/self/ns/pid').ino }
  }
}

/** Nothing else runs in this process meanwhile, as when it is not given a processor. */
function stall(): void {
  if (stallPath === '') return
  writeFileSync(`${stallPath}-reached`, '')
  while (!existsSync(stallPath)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
  stallPath = ''
}

function fetchText(host: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ host, port, agent: false }, (response) => {
      let text = ''
      response.on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => resolve(text))
    }).on('error', reject)
  })
}

function print(value: unknown): void {
  process.stdout.write(`${stringify(value)}\n`)
}

/** BigInts become strings; what is undefined is left out. */
function stringify(value: unknown): string {
  return JSON.stringify(value, (_, item) => (typeof item === 'bigint' ? String(item) : item))
}
