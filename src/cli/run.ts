/** Runs the agent in this process, as a service or at a console, until it is told to stop. */

import { type Agent, startAgent } from '../agent/agent.ts'
import { AgentError, describeError } from '../base/errors.ts'
import { toSafeLine } from '../base/log.ts'
import type { Config } from '../config/config.ts'
import { loadConfig } from '../config/load-config.ts'
import { print } from './print.ts'

/** EX_CONFIG of sysexits(3). */
const EXIT_CONFIG = 78
const EXIT_INTERNAL = 101

/**
 * Threads that wait for the file system. A disk that hangs keeps one for each file that is being written, and those who
 * look up a caller must not stand in line behind it. The pool is made with its first task; until then it can be sized.
 * Source: libuv documentation, "Thread pool work scheduling", UV_THREADPOOL_SIZE.
 */
const FILE_THREADS = '16'

/**
 * Runs the agent; the process ends with it: with 0 after an ordered stop, with 101 or by a signal after a fault of our own,
 * so that the service manager starts it anew.
 * @returns 78 for a configuration that cannot be used
 */
export async function runAgent(
  kind: 'service' | 'console',
  configPath: string | undefined,
  version: string,
): Promise<number> {
  process.env.UV_THREADPOOL_SIZE ??= FILE_THREADS
  let config: Config
  try {
    config = loadConfig(configPath)
  } catch (error) {
    if (!(error instanceof AgentError)) throw error
    print(2, `azure-proxy-agent: ${toSafeLine(describeError(error))}\n`)
    return EXIT_CONFIG
  }
  if (config.logFolder === '') print(1, 'The log folder is not set, skip write to GPA managed file log.\n')
  const agent = startAgent(config, version)
  const die = (error: unknown) => {
    const trace = error instanceof Error ? (error.stack ?? error.message) : String(error)
    agent.die(EXIT_INTERNAL, `azure-proxy-agent: internal error: ${trace}`)
  }
  process.on('uncaughtException', die)
  process.on('unhandledRejection', die)
  process.on('SIGTERM', agent.stop)
  process.on('SIGINT', agent.stop)
  process.on('SIGHUP', agent.reload)
  if (kind === 'console') stopOnEnter(agent)
  await agent.done
  return agent.exit(0)
}

/** Stops at the first line on standard input. Its end means that nobody sits there: then a signal stops the agent. */
function stopOnEnter(agent: Agent): void {
  print(1, 'Press Enter to end it.\n')
  process.stdin.on('data', (chunk: Buffer) => {
    if (chunk.includes('\n')) agent.stop()
  })
  process.stdin.on('error', () => undefined)
  void agent.done.then(() => process.stdin.destroy())
}
