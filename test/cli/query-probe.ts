/**
 * Asks a server of its own on the listener's port, for `status-query.test.ts`: the port is fixed, so this runs as a
 * process in a network namespace of its own. Reads answers (latin1, `null` for silence) as JSON from its argument and
 * writes what each query sent and got.
 */

import { createServer } from 'node:net'
import { describeError } from '../../src/base/errors.ts'
import { queryService } from '../../src/cli/status.ts'

const results: { readonly sent: string; readonly outcome: unknown }[] = []

async function ask(answer: string | null, isFirst: boolean): Promise<void> {
  let sent = ''
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      sent += chunk.toString('latin1')
      if (answer !== null && sent.endsWith('\r\n\r\n')) socket.end(answer, 'latin1')
    })
  })
  await new Promise<void>((resolve) => server.listen(3080, '127.0.0.1', resolve))
  const outcome = await queryService(1767323045123456789n, isFirst, 300).catch(describeError)
  await new Promise((resolve) => server.close(resolve))
  results.push({ sent, outcome })
}

const answers = JSON.parse(process.argv[2] ?? '[]') as (string | null)[]
for (const [index, answer] of answers.entries()) await ask(answer, index === 0)
const refused = await queryService(1n, true, 300).catch(describeError)
process.stdout.write(JSON.stringify([...results, { sent: '', outcome: refused }]))
