import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { describe, test } from 'node:test'
import { describePortHolder } from '../../src/sys/port-holder.ts'
import { fdOfSocket } from '../../src/sys/socket.ts'
import {
  findSocketHolders,
  ownSocketInodes,
  parseTcpTable,
  readTcpSockets,
  TCP_STATE,
} from '../../src/sys/tcp-table.ts'

/** Captured on Linux 6.18, x86-64. */
const TABLE4 = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0C08 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1398 1 0000000021d5d3a6 100 0 0 10 0
   1: 0A00000A:A82C FEA9FEA9:0050 01 00000000:00000000 00:00000000 00000000  1000        0 1402 1 00000000ba2f7c5b 20 4 0 10 -1
`
const TABLE6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000100007F:B37E 0000000000000000FFFF0000FEA9FEA9:0050 02 00000000:00000000 00:00000000 00000000  1000        0 1521 1 00000000c4b7ea5e 100 0 0 10 0
   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1522 1 0000000052a5a4b2 100 0 0 10 0
`

describe('parseTcpTable()', () => {
  test('reads addresses, states, users and inodes, and passes over the heading', () => {
    const any = { address: '0.0.0.0', port: 0 }
    assert.deepEqual(parseTcpTable(TABLE4, false), [
      { isIpv6: false, local: { address: '127.0.0.1', port: 3080 }, remote: any, state: 10, uid: 0, inode: '1398' },
      {
        isIpv6: false,
        local: { address: '10.0.0.10', port: 43052 },
        remote: { address: '169.254.169.254', port: 80 },
        state: 1,
        uid: 1000,
        inode: '1402',
      },
    ])
  })

  test('reads mapped addresses of IPv6 sockets, and leaves out the others', () => {
    assert.deepEqual(parseTcpTable(TABLE6, true), [
      {
        isIpv6: true,
        local: { address: '127.0.0.1', port: 45950 },
        remote: { address: '169.254.169.254', port: 80 },
        state: 2,
        uid: 1000,
        inode: '1521',
      },
    ])
  })
})

test('the sockets of this process are listed, known as its own, and found with it', async () => {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const client = connect(port, '127.0.0.1')
  try {
    await once(client, 'connect')
    assert.ok(fdOfSocket(client) > 0)
    const found = readTcpSockets().find(({ local }) => local.port === client.localPort)
    assert.ok(found)
    const { inode, ...rest } = found
    assert.deepEqual(rest, {
      isIpv6: false,
      local: { address: '127.0.0.1', port: client.localPort },
      remote: { address: '127.0.0.1', port },
      state: TCP_STATE.established,
      uid: process.getuid?.(),
    })
    assert.ok(ownSocketInodes().has(inode))
    assert.match(findSocketHolders(new Set([inode])).get(inode) ?? '', new RegExp(`\\(pid ${process.pid}\\)$`))
    assert.match(describePortHolder(port) ?? '', new RegExp(`\\(pid ${process.pid}\\)$`))
  } finally {
    client.destroy()
    server.close()
  }
})

test('a port that nobody listens on, and a socket that nobody holds, have no holder', () => {
  assert.equal(describePortHolder(1), undefined)
  assert.deepEqual(findSocketHolders(new Set(['0'])), new Map())
})
