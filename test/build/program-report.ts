import { dlopen } from 'node:ffi'
import { writeSync } from 'node:fs'
import { createServer } from 'node:http'
import inspector from 'node:inspector'
import type { AddressInfo } from 'node:net'
import { Pool } from 'undici'
import { number, parse } from 'valibot'

/** What `report` prints, as JSON, about the process that ran it. */
export interface Report {
  readonly argv: readonly string[]
  readonly execArgv: readonly string[]
  /** The address a debugger could reach, if any. */
  readonly inspectorUrl: string | null
  readonly pid: number
  /** The same number, from libc through node:ffi. */
  readonly ffiPid: number
  /** The body of an answer fetched from a server of this process: undici parses HTTP with WebAssembly. */
  readonly fetched: string
  readonly hasProto: boolean
  /** What `new Function` said instead of making one. */
  readonly codeFromString: string
}

/** Uses a package of each kind, and node:ffi, then prints a `Report`. */
export async function report(): Promise<void> {
  const libc = dlopen(null, { getpid: { arguments: [], return: 'i32' } })
  const facts: Report = {
    argv: process.argv,
    execArgv: process.execArgv,
    inspectorUrl: inspector.url() ?? null,
    pid: process.pid,
    ffiPid: Number(libc.functions.getpid()),
    fetched: await fetchFromOurselves(),
    hasProto: '__proto__' in {},
    codeFromString: makeCodeFromString(),
  }
  writeSync(1, `${JSON.stringify(facts)}\n`)
}

function makeCodeFromString(): string {
  try {
    return String(new Function('return 1')())
  } catch (error) {
    return error instanceof Error ? error.name : String(error)
  }
}

async function fetchFromOurselves(): Promise<string> {
  const server = createServer((_, response) => response.end('answered'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const port = parse(number(), (server.address() as AddressInfo).port)
  const pool = new Pool(`http://127.0.0.1:${port}`)
  const { body } = await pool.request({ path: '/', method: 'GET' })
  const text = await body.text()
  await pool.close()
  server.close()
  return text
}
