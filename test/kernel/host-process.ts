/**
 * Stands for the host in a lab: answers `host` on the metadata addresses, over TCP and UDP. Prints `ready`.
 * Run inside the namespace only.
 */

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:http'

const TCP: readonly (readonly [string, number])[] = [
  ['169.254.169.254', 80],
  ['169.254.169.254', 8080],
  ['168.63.129.16', 80],
  ['168.63.129.16', 32526],
]

for (const [address, port] of TCP) {
  const server = createServer((_, response) => response.end('{"who":"host"}'))
  server.listen({ host: address, port, backlog: 512 })
  await once(server, 'listening')
}

const udp = createSocket('udp4')
udp.on('message', (_, peer) => udp.send('{"who":"host"}', peer.port, peer.address))
udp.bind(80, '169.254.169.254')
await once(udp, 'listening')

process.stdout.write('ready\n')
