/** The status of the service for people: a screen, and nothing that a terminal would obey. */

import type { ServiceStatus } from '../agent/report.ts'
import { escapeControls } from '../base/text.ts'

const LABEL = 'redirection  '.length

const SHOWN_DENIALS = 10

/** Writes the view. */
export function formatServiceStatus(status: ServiceStatus): string {
  const { proxyAgentStatus, health, process, channel, redirection, decisions, lastDenials } = status
  const { states = {} } = proxyAgentStatus.keyLatchStatus
  const row = (label: string, text: string) => `${label.padEnd(LABEL)}${escapeControls(text)}\n`
  const { counters } = redirection
  const requests = [
    `${proxyAgentStatus.proxyConnectionsCount} read`,
    `${decisions.ok} allowed`,
    `${decisions.audit} denied in audit mode`,
    `${decisions.forbidden} denied`,
    `${status.attributionFailures} connections without a caller`,
  ]
  return [
    row('health', `${health.isHealthy ? 'healthy' : 'NOT HEALTHY'}, ${health.reason}`),
    row('service', `version ${proxyAgentStatus.version}, pid ${process.pid}, up ${duration(process.uptimeSeconds)}`),
    row('self-check', describeCheck(status.selfCheck)),
    row('channel', `${channel.state}; ${polled(channel.lastGoodPollAgeSeconds)}`),
    row('key', describeKey(channel)),
    row('rules', RULES.map(([name, key]) => `${name} ${quoteId(states[key])}`).join(', ')),
    row('redirection', describeRedirection(redirection)),
    row('requests', requests.join(', ')),
    row('connections', `${process.openConnections} open, ${counters.redirected ?? 0} redirected so far`),
    row('containers', describeContainers(status.containers)),
    row('telemetry', describeTelemetry(status.telemetry)),
    ...(status.lostLogEntries === 0 ? [] : [row('lost', `${status.lostLogEntries} log entries`)]),
    ...redirection.lacking.map((lack) => row('lacking', lack)),
    row('denials', lastDenials.length === 0 ? 'none' : `the last ${Math.min(SHOWN_DENIALS, lastDenials.length)}`),
    ...lastDenials.slice(0, SHOWN_DENIALS).map(formatDenial),
  ].join('')
}

function describeRedirection({ policy, failsClosed }: ServiceStatus['redirection']): string {
  const what = policy.length === 0 ? 'nothing is redirected' : policy.join(', ')
  return failsClosed ? `${what}; fails closed` : what
}

function describeTelemetry({ sent, waiting, lost }: ServiceStatus['telemetry']): string {
  return `${sent} events sent, ${waiting} waiting${lost === 0 ? '' : `, ${lost} lost`}`
}

function describeContainers({ served, refused }: ServiceStatus['containers']): string {
  const reasons = Object.entries(refused).filter(([, count]) => count > 0)
  const text = reasons.map(([reason, count]) => `${count} ${reason.replace('_', ' ')}`).join(', ')
  return `${served} network namespaces served${text && `; refused: ${text}`}`
}

const RULES = [
  ['WireServer', 'wireServerRuleId'],
  ['IMDS', 'imdsRuleId'],
  ['HostGA', 'hostGARuleId'],
] as const

function quoteId(id: string | undefined): string {
  return id ? `"${id}"` : 'none'
}

function describeCheck({ result, reason, ageSeconds }: ServiceStatus['selfCheck']): string {
  return `${result} ${duration(ageSeconds)} ago${reason === '' ? '' : `: ${reason}`}`
}

function polled(ageSeconds: number | undefined): string {
  return ageSeconds === undefined ? 'the host has not answered yet' : `the host answered ${duration(ageSeconds)} ago`
}

function describeKey({ keyGuid, keyAgeSeconds }: ServiceStatus['channel']): string {
  if (keyGuid === undefined) return 'none'
  return keyAgeSeconds === undefined ? keyGuid : `${keyGuid}, ${duration(keyAgeSeconds)} old`
}

function formatDenial(denial: ServiceStatus['lastDenials'][number]): string {
  const { timestamp, count, outcome, userName, endpoint, method, url, processFullPath, processCmdLine, reason } = denial
  const times = count === 1 ? '' : `, ${count} times`
  const lines = [
    `  ${timestamp.slice(0, 19)}  ${userName}${times}: ${method} ${url} (${endpoint})`,
    `    ${processFullPath || 'executable not known'}: ${processCmdLine}`,
    // The reason begins with the outcome.
    `    ${reason.startsWith(outcome) ? reason : `${outcome}: ${reason}`}`,
  ]
  return lines.map((line) => `${escapeControls(line)}\n`).join('')
}

const UNITS = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
] as const

/** Renders seconds in the largest unit that gives at least one. */
function duration(seconds: number): string {
  const unit = UNITS.find(([size]) => seconds >= size)
  return unit === undefined ? `${Math.round(seconds)} s` : `${Math.floor(seconds / unit[0])} ${unit[1]}`
}
