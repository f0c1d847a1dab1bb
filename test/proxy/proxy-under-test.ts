/** A proxy on an ephemeral loopback port, between raw sockets, with stages that a test can set. */

import { readFileSync, readlinkSync } from 'node:fs'
import { LISTENER_SOCKETS } from '../../src/agent/listener-sockets.ts'
import { HOSTGA, IMDS, WIRESERVER } from '../../src/base/endpoints.ts'
import { type LatchedKey, SecretKey } from '../../src/channel/secret-key.ts'
import { authorizationValue } from '../../src/channel/sign.ts'
import type { Caller } from '../../src/identity/caller.ts'
import { createBodyBudget } from '../../src/proxy/body-budget.ts'
import type { Attribution } from '../../src/proxy/exchange.ts'
import { createHostClient, HOST_CLIENT_DEFAULTS, type HostClient } from '../../src/proxy/host-client.ts'
import type { HostClientOptions } from '../../src/proxy/host-exchange.ts'
import { createProxyServer, PROXY_SERVER_DEFAULTS, type ProxyServerOptions } from '../../src/proxy/server.ts'
import type { ProxyStages } from '../../src/proxy/stages.ts'
import type { Verdict } from '../../src/rules/decide.ts'
import { isExemptUpload } from '../../src/rules/exempt-upload.ts'
import type { ConnectionFacts, RequestFacts } from '../../src/telemetry/request-facts.ts'
import type { RequestObserver } from '../../src/telemetry/request-observer.ts'
import { makeCaller } from '../fakes/caller.ts'
import { connectClient, type RawClient, type RawClientOptions } from './raw-client.ts'
import { type RawHost, startRawHost } from './raw-host.ts'

/** What the observer was told, as one line each. */
export type Told = string

export const ROOT = makeCaller({
  uid: 0,
  gid: 0,
  userName: 'root',
  groups: ['root'],
  pid: 42,
  commandLine: 'curl',
  elevated: true,
})
export const ALICE: Caller = { ...ROOT, uid: 1000, gid: 1000, userName: 'alice', groups: ['alice'], elevated: false }

export const ALLOWED: Verdict = { outcome: 'ok', decidedBy: 'endpoint', reason: { kind: 'no-rules' } }
export const AUDITED: Verdict = { outcome: 'audit', decidedBy: 'legacy', reason: { kind: 'default-access' } }
export const DENIED: Verdict = { outcome: 'forbidden', decidedBy: 'legacy', reason: { kind: 'default-access' } }

export const KEY_HEX = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
export const KEY: LatchedKey = {
  guid: '0a1b2c3d-0000-4000-8000-00000000000a',
  incarnationId: 1,
  key: new SecretKey(KEY_HEX),
  issued: '2026-01-02T03:04:05Z',
}
export const DATE = 'Fri, 02 Jan 2026 03:04:05 GMT'

export interface ProxyUnderTest {
  readonly port: number
  readonly host: RawHost
  readonly told: Told[]
  /** Set any stage; the defaults attribute everybody as root on IMDS, allow, and sign. */
  readonly stages: { -readonly [Name in keyof ProxyStages]: ProxyStages[Name] }
  connect(options?: RawClientOptions): RawClient
  /** Writes one request on a connection of its own and gives its answer. */
  ask(request: string): Promise<{ status: number; head: string; body: string; headers: Record<string, string> }>
  openConnections(): number
  /** Accepts on another listener, too. */
  adopt(fd: number): Disposable
  close(graceMs?: number): Promise<void>
  readonly closed: Promise<void>
}

export interface ProxySettings {
  readonly server?: Partial<ProxyServerOptions>
  readonly hostClient?: Partial<HostClientOptions>
  readonly keepsBodies?: boolean
}

/** Attributes every connection to `caller` on its way to `endpoint`. */
export function attributing(caller: Caller | Promise<Caller>, endpoint: Attribution['destination'] = IMDS) {
  return (): Attribution => ({
    destination: { address: endpoint.address, port: endpoint.port },
    uid: caller instanceof Promise ? ROOT.uid : caller.uid,
    caller: Promise.resolve(caller),
  })
}

/** Starts proxy and host. Whatever the destination, bytes go to the host on loopback and nowhere else. */
export async function startProxy(settings: ProxySettings = {}): Promise<ProxyUnderTest> {
  const host = await startRawHost(settings.keepsBodies)
  const pool = createHostClient({ ...HOST_CLIENT_DEFAULTS, ...settings.hostClient })
  const toldLines: Told[] = []
  let requests = 0
  const toLoopback: HostClient = {
    send: (destination, order, handler) => {
      if (![IMDS, HOSTGA, WIRESERVER].some(({ address }) => address === destination.address))
        throw new Error(`the test does not know ${destination.address}`)
      return pool.send({ address: '127.0.0.1', port: host.port }, order, handler)
    },
    close: () => pool.close(),
  }
  const stages: ProxyUnderTest['stages'] = {
    attribute: attributing(ROOT),
    sockets: LISTENER_SOCKETS,
    decide: () => ALLOWED,
    isExemptUpload,
    isReady: () => true,
    nextRequestId: () => ++requests,
    httpDate: () => DATE,
    authorize: (request) => authorizationValue(KEY, request),
    keyAfter: () => undefined,
    isSelfProbe: (rawTarget) => rawTarget === '/probe-under-test',
    provision: () => ({ finished: true, errorMessage: '' }),
    statusJson: () => '{"status":"fake"}',
    hostClient: toLoopback,
    bodyBudget: createBodyBudget(),
    observer: recordingObserver(toldLines),
  }
  const server = createProxyServer(stages, () => performance.now(), { ...PROXY_SERVER_DEFAULTS, ...settings.server })
  await server.listen('127.0.0.1', 0)
  const port = portOf(server.descriptor() as number)
  const clients: RawClient[] = []
  const connect = (options?: RawClientOptions) => {
    const client = connectClient(port, options)
    clients.push(client)
    return client
  }
  return {
    port,
    host,
    told: toldLines,
    stages,
    connect,
    async ask(request) {
      const client = connect({ methods: [request.slice(0, request.indexOf(' '))] })
      client.write(request)
      const [answer] = await client.answers(1)
      client.destroy()
      if (answer === undefined) throw new Error('the connection ended without an answer')
      return { ...answer, headers: { ...answer.headers } }
    },
    openConnections: server.openConnections,
    adopt: (fd) => server.adopt(fd, 1n),
    async close(graceMs = 0) {
      const closing = server.close(graceMs)
      if (graceMs === 0) for (const client of clients) client.destroy()
      await closing
      await pool.close()
      await host.close()
    },
    closed: server.closed,
  }
}

/** Reads the port of a listening socket: the server itself does not tell. */
export function portOf(descriptor: number): number {
  const inode = /\[(\d+)\]/.exec(readlinkSync(`/proc/self/fd/${descriptor}`))?.[1]
  for (const line of readFileSync('/proc/self/net/tcp', 'latin1').split('\n')) {
    const fields = line.trim().split(/\s+/)
    if (fields[9] === inode) return Number.parseInt((fields[1] as string).slice(-4), 16)
  }
  throw new Error(`no listening socket with inode ${inode}`)
}

function recordingObserver(told: Told[]): RequestObserver {
  const name = (request: RequestFacts) => `${request.method} ${request.rawTarget}`
  const from = (connection: ConnectionFacts) => connection.destination?.address ?? 'direct'
  return {
    connected: (connection, doubt) => void told.push(`connected ${from(connection)}${doubt ? `: ${doubt}` : ''}`),
    dismissed: (_connection, user, reason) => void told.push(`dismissed ${user ?? 'nobody'}: ${reason}`),
    rejected: (_connection, status, detail) => void told.push(`rejected ${status}: ${detail}`),
    nowMs: () => performance.now(),
    sent: () => undefined,
    hostAnswered: () => undefined,
    started: (request) => void told.push(`started ${name(request)}`),
    note: (request, level, message) => void told.push(`note ${name(request)} ${level}: ${message}`),
    decided: (request, caller, verdict) =>
      void told.push(`decided ${name(request)} ${caller.userName} ${verdict.outcome}`),
    finished: (request, caller, status, detail, list = 'normal') =>
      void told.push(`finished ${name(request)} ${caller?.userName ?? 'nobody'} ${list} ${status}: ${detail}`),
    served: (request, caller, status, complaint) =>
      void told.push(
        `served ${name(request)} ${caller?.userName ?? 'nobody'} ${status}${complaint ? `: ${complaint}` : ''}`,
      ),
    listenerFailed: (reason) => void told.push(`listener: ${reason}`),
    failed: (request, reason) => void told.push(`failed ${name(request)}: ${reason}`),
  }
}
