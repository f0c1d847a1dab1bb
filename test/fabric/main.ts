/**
 * Runs a simulated host as a process of its own, for the demo, the end-to-end tests and curious people.
 * The last line before the requests is `fabric: ready`; whoever started it waits for that.
 */

import { readFileSync } from 'node:fs'
import { type Arguments, parseArguments, USAGE, UsageError } from './arguments.ts'
import { ENDPOINT_NAMES } from './channel.ts'
import { type ControlServer, startControl } from './control-server.ts'
import { type Fabric, startFabric } from './fabric.ts'
import type { RecordedRequest } from './records.ts'

/** Renders one recorded request on a line. Control characters cannot be in it: the reader refuses them. */
function describe(request: RecordedRequest): string {
  const parts = [
    request.endpoint.padEnd(10),
    request.method === '' ? '-' : request.method,
    request.target === '' ? '-' : request.target,
    request.status === 0 ? 'no-answer' : String(request.status),
    `signature=${request.signature}`,
    `decision=${request.decision}`,
  ]
  if (request.isRoot !== undefined) parts.push(`isRoot=${request.isRoot}`)
  if (request.bodySizeBytes > 0) parts.push(`body=${request.bodySizeBytes}`)
  if (request.objection !== undefined) parts.push(`objection=${request.objection}`)
  if (request.fault !== undefined) parts.push(`fault=${request.fault}`)
  if (request.reason !== undefined) parts.push(`reason="${request.reason}"`)
  return parts.join(' ')
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

async function run({ options, rulesFile, control, isQuiet }: Arguments): Promise<void> {
  const fabric = await startFabric({
    ...options,
    ...(rulesFile !== undefined && { rules: JSON.parse(readFileSync(rulesFile, 'utf8')) }),
    ...(!isQuiet && { onRequest: (request: RecordedRequest) => say(describe(request)) }),
  })
  const controlServer = control && (await startControl(fabric, control))
  for (const endpoint of ENDPOINT_NAMES) {
    const { host, port } = fabric.addresses[endpoint]
    say(`fabric: ${endpoint} ${host}:${port}`)
  }
  if (controlServer !== undefined) {
    const { place } = controlServer
    say(`fabric: control ${'path' in place ? place.path : `127.0.0.1:${place.port}`}`)
  }
  say('fabric: ready')
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void stop(fabric, controlServer))
}

async function stop(fabric: Fabric, control: ControlServer | undefined): Promise<void> {
  await Promise.all([fabric.close(), control?.close()])
}

/** Explains the one failure that everybody meets first. */
function explain(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  if ((error as NodeJS.ErrnoException).code !== 'EADDRNOTAVAIL') return message
  return `${message}; a network namespace needs it first: ip addr add ADDRESS/32 dev lo`
}

try {
  const args = parseArguments(process.argv.slice(2))
  if (args.wantsHelp) process.stdout.write(USAGE)
  else await run(args)
} catch (error) {
  process.exitCode = error instanceof UsageError ? 2 : 1
  process.stderr.write(`fabric: ${explain(error)}\n${error instanceof UsageError ? USAGE : ''}`)
}
