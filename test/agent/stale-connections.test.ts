import assert from 'node:assert/strict'
import { test } from 'node:test'
import { handleStaleConnections } from '../../src/agent/stale-connections.ts'
import type { Destruction } from '../../src/sys/destroy-socket.ts'
import { TCP_STATE, type TcpSocket } from '../../src/sys/tcp-table.ts'
import { createFakeLog } from '../fakes/log.ts'

const IMDS = { address: '169.254.169.254', port: 80 }

function socket(inode: string, change: Partial<TcpSocket> = {}): TcpSocket {
  const local = { address: '10.0.0.4', port: 40_000 + Number(inode) }
  return { isIpv6: false, local, remote: IMDS, state: TCP_STATE.established, uid: 1000, inode, ...change }
}

function handle(sockets: readonly TcpSocket[], close: boolean, fate: Destruction = { kind: 'ended' }) {
  const log = createFakeLog()
  const destroyed: string[] = []
  const env = {
    readSockets: () => sockets,
    ownInodes: () => new Set(['9']),
    findHolders: (inodes: ReadonlySet<string>) => new Map([...inodes].map((inode) => [inode, `tool (pid ${inode})`])),
    destroy({ inode }: TcpSocket) {
      destroyed.push(inode)
      return fate
    },
  }
  handleStaleConnections([IMDS], close, env, log)
  return { destroyed, lines: log.lines }
}

test('handleStaleConnections() ends what can still carry a request, and nothing else', () => {
  const { destroyed, lines } = handle(
    [
      socket('1'),
      socket('2', { state: TCP_STATE.synSent }),
      socket('3', { state: TCP_STATE.closeWait, isIpv6: true }),
      socket('4', { state: 6 }),
      socket('5', { state: TCP_STATE.listen }),
      socket('6', { remote: { address: '169.254.169.254', port: 8080 } }),
      socket('7', { remote: { address: '169.254.169.253', port: 80 } }),
      socket('9'),
    ],
    true,
  )
  assert.deepEqual(destroyed, ['1', '2', '3'])
  assert.equal(lines.length, 3)
})

test('handleStaleConnections() only tells unless it is to close, and says how to have it done', () => {
  const { destroyed, lines } = handle([socket('1')], false)
  assert.deepEqual(destroyed, [])
  assert.deepEqual(lines, [
    'Warn A connection from before redirection goes around the agent: 169.254.169.254:80 from port 40001, user id 1000, held by tool (pid 1): left as it is',
    'Warn Set closeStaleConnections in the configuration to have such connections ended',
  ])
})

test('handleStaleConnections() says nothing when there are none', () => {
  assert.deepEqual(handle([socket('9')], true).lines, [])
})

for (const [fate, words] of [
  [{ kind: 'ended' }, 'ended'],
  [{ kind: 'gone' }, 'it had ended already'],
  [{ kind: 'refused', because: 'EPERM' }, 'it cannot be ended: EPERM'],
] as const) {
  test(`handleStaleConnections() tells what became of a connection: ${words}`, () => {
    assert.ok(handle([socket('1')], true, fate).lines[0]?.endsWith(`: ${words}`))
  })
}

test('handleStaleConnections() ends a thousand connections and tells of twenty', () => {
  const { destroyed, lines } = handle(
    Array.from({ length: 1000 }, (_, i) => socket(String(i + 100))),
    true,
  )
  assert.equal(destroyed.length, 1000)
  assert.deepEqual([lines.length, lines.at(-1)], [21, 'Warn There are 980 more such connections'])
})
