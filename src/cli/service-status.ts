/** `status`: asks the running service over its control socket, and prints what it says. */

import { request as httpRequest } from 'node:http'
import type { ServiceStatus } from '../agent/report.ts'
import { AgentError, describeErrno, describeError } from '../base/errors.ts'
import { replaceFile } from '../base/private-file.ts'
import { escapeControls } from '../base/text.ts'
import { DEFAULT_CONTROL_SOCKET } from '../config/config.ts'
import { isConfigMissing, loadConfig } from '../config/load-config.ts'
import type { ServiceCommand } from './service-arguments.ts'
import { formatServiceStatus } from './service-view.ts'

const TIMEOUT_MS = 5000
const MAX_ANSWER_BYTES = 16 * 1024 * 1024

type Print = (fd: 1 | 2, text: string) => void

/** Runs the command. @returns the exit code: 0 healthy, or written; 1 not */
export async function runServiceStatus(command: ServiceCommand, print: Print): Promise<number> {
  const { output } = command
  try {
    const socket = command.socket ?? configuredSocket(command.configPath)
    if (output.form === 'textfile') return await writeTextfile(output.file, socket, print)
    const text = await ask(socket, '/status')
    const status = parseStatus(text)
    print(1, output.form === 'json' ? `${JSON.stringify(status, null, 2)}\n` : formatServiceStatus(status))
    return status.health.isHealthy ? 0 : 1
  } catch (error) {
    print(2, `azure-proxy-agent: ${escapeControls(describeError(error))}\n`)
    return 1
  }
}

/** A machine without a configuration file may still have a service that was started with another one. */
function configuredSocket(configPath: string | undefined): string {
  let path: string
  try {
    path = loadConfig(configPath).controlSocket
  } catch (error) {
    if (configPath !== undefined || !isConfigMissing(error)) throw error
    path = DEFAULT_CONTROL_SOCKET
  }
  if (path === '')
    throw new AgentError('NO_CONTROL_SOCKET', "The configuration turns the socket off: 'controlSocket' is empty")
  return path
}

/** Readers of the file shall see that the service is gone, rather than its last numbers for ever. */
async function writeTextfile(file: string, socket: string, print: Print): Promise<number> {
  let page: string
  let failure: string | undefined
  try {
    page = await ask(socket, '/metrics')
  } catch (error) {
    page = ''
    failure = describeError(error)
  }
  const up = [
    '# HELP azure_proxy_agent_up 1 when the service answered.',
    '# TYPE azure_proxy_agent_up gauge',
    `azure_proxy_agent_up ${failure === undefined ? 1 : 0}`,
  ]
  await replaceFile(file, `${up.join('\n')}\n${page}`, { mode: 0o644, temporaryPath: `${file}.${process.pid}.tmp` })
  if (failure === undefined) return 0
  print(2, `azure-proxy-agent: ${escapeControls(failure)}\n`)
  return 1
}

/** Versions of service and command may differ for a while after an upgrade: what the view needs must be there. */
function parseStatus(text: string): ServiceStatus {
  const unknown = () =>
    new AgentError('STATUS_UNKNOWN', 'The service answers in a form that this version does not know')
  let status: Partial<ServiceStatus>
  try {
    status = JSON.parse(text) as Partial<ServiceStatus>
  } catch {
    throw unknown()
  }
  const isComplete =
    typeof status?.health?.isHealthy === 'boolean' &&
    MEMBERS.every((name) => typeof status[name] === 'object' && status[name] !== null)
  if (!isComplete) throw unknown()
  return status as ServiceStatus
}

const MEMBERS = [
  'proxyAgentStatus',
  'process',
  'selfCheck',
  'channel',
  'redirection',
  'decisions',
  'lastDenials',
] as const satisfies readonly (keyof ServiceStatus)[]

/** Asks for one page. @throws AgentError that says what to do */
function ask(socketPath: string, path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const request = httpRequest({ socketPath, path, agent: false, headers: { host: 'localhost' } })
  const timer = setTimeout(
    () => request.destroy(new AgentError('NO_ANSWER', `The service does not answer within ${TIMEOUT_MS} ms`)),
    TIMEOUT_MS,
  )
  request.on('error', (error: NodeJS.ErrnoException) => reject(explain(error, socketPath)))
  request.on('close', () => reject(new AgentError('NO_ANSWER', 'The service closed the connection without an answer')))
  request.on('response', (response) => {
    let text = ''
    response.setEncoding('utf8')
    response.on('error', reject)
    response.on('data', (chunk: string) => {
      text += chunk
      if (text.length > MAX_ANSWER_BYTES) request.destroy(new AgentError('NO_ANSWER', 'The answer is too large'))
    })
    response.on('end', () => {
      if (response.statusCode === 200) return resolve(text)
      reject(new AgentError('REFUSED', `The service refuses, ${response.statusCode}: ${text.trim()}`))
    })
  })
  request.end()
  return promise.finally(() => clearTimeout(timer))
}

function explain(error: NodeJS.ErrnoException, socketPath: string): Error {
  switch (error.code) {
    case 'ENOENT':
      return new AgentError('NOT_RUNNING', `The service is not running: there is no socket at ${socketPath}`)
    case 'ECONNREFUSED':
      return new AgentError('NOT_RUNNING', `The service is not running: nobody listens at ${socketPath}`)
    case 'EACCES':
    case 'EPERM':
      return new AgentError('NOT_ROOT', `Only root may ask: ${socketPath} is closed to this user`)
    default:
      if (error instanceof AgentError || error.errno === undefined) return error
      return new AgentError('NO_ANSWER', `Cannot ask at ${socketPath}: ${describeErrno(error.errno)}`)
  }
}
