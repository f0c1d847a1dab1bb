/**
 * Telemetry events in the two shapes of event files, which other components write and read as well; in memory they are
 * the same. A log event says what happened, a status event how the agent is.
 *
 * Names and types of the members are a contract. Messages are bounded and free of secrets from here on, whoever wrote them.
 */

import { isoMs } from '../base/dates.ts'
import { isJsonObject } from '../base/json.ts'
import type { Level, LogOrigin } from '../base/log.ts'
import { redactSecrets } from '../base/redact.ts'
import { cutUtf8 } from '../base/text.ts'

export interface LogEvent {
  /** A level in upper case; other writers have other words. */
  readonly EventLevel: string
  readonly Message: string
  /** Of the agent or component that wrote it. */
  readonly Version: string
  readonly TaskName: string
  /** Decimal. */
  readonly EventPid: string
  /** Decimal, with zeros in front to 8 digits. */
  readonly EventTid: string
  readonly OperationId: string
  /** `YYYY-MM-DDTHH:MM:SS.mmm`, UTC. */
  readonly TimeStamp: string
}

export interface StatusEvent {
  readonly extension: {
    readonly name: string
    readonly version: string
    readonly is_internal: boolean
    readonly extension_type: string
  }
  readonly operation_status: {
    readonly operation_success: boolean
    readonly operation: string
    readonly task_name: string
    readonly message: string
    /** Milliseconds, a whole number. */
    readonly duration: number
  }
  readonly event_pid: string
  readonly event_tid: string
  readonly time_stamp: string
}

export type TelemetryEvent = LogEvent | StatusEvent

/** Longest message of one event, in bytes of UTF-8. */
export const MAX_MESSAGE_BYTES = 4096

/** What is looked at of a longer message of somebody else: a secret that is cut in half no longer looks like one. */
const MAX_REDACTED_BYTES = 16 * 1024

/** Who writes events here. */
export interface Writer {
  readonly version: string
  readonly pid: number
}

/** Tells whether an event is a status event. */
export function isStatusEvent(event: TelemetryEvent): event is StatusEvent {
  return 'extension' in event
}

/** Makes the event of a line of the log. @param message redacted already */
export function createLogEvent(
  writer: Writer,
  level: Level,
  message: string,
  epochMs: number,
  origin: LogOrigin,
): LogEvent {
  return {
    EventLevel: level.toUpperCase(),
    Message: cutUtf8(message, MAX_MESSAGE_BYTES),
    Version: writer.version,
    TaskName: origin.task,
    EventPid: String(writer.pid),
    EventTid: threadOf(writer),
    OperationId: origin.operation,
    TimeStamp: isoMs(epochMs),
  }
}

/** Makes the event that tells how the agent is. @param durationMs since the last of these */
export function createStatusEvent(
  writer: Writer,
  isSuccess: boolean,
  message: string,
  epochMs: number,
  durationMs: number,
): StatusEvent {
  return {
    extension: {
      name: 'azure-proxy-agent',
      version: writer.version,
      is_internal: true,
      extension_type: 'Monitoring',
    },
    operation_status: {
      operation_success: isSuccess,
      operation: 'report_proxy_agent_status',
      task_name: 'loop_status',
      message: safeMessage(message),
      duration: Math.round(durationMs),
    },
    event_pid: String(writer.pid),
    event_tid: threadOf(writer),
    time_stamp: isoMs(epochMs),
  }
}

/** The process has one thread that writes events; its number is that of the process. Source: gettid(2). */
function threadOf({ pid }: Writer): string {
  return String(pid).padStart(8, '0')
}

/** Reads one element of a file of log events. @returns `undefined` unless all members are there and are strings */
export function readLogEvent(value: unknown): LogEvent | undefined {
  if (!hasMembers(value, LOG_MEMBERS)) return undefined
  const { EventLevel, Message, Version, TaskName, EventPid, EventTid, OperationId, TimeStamp } = value as LogEvent
  return {
    EventLevel,
    Message: safeMessage(Message),
    Version,
    TaskName,
    EventPid,
    EventTid,
    OperationId,
    TimeStamp,
  }
}

/** Reads the object of a file of one status event. @returns `undefined` unless all members are there and of their types */
export function readStatusEvent(value: unknown): StatusEvent | undefined {
  if (!hasMembers(value, STATUS_MEMBERS)) return undefined
  const { extension, operation_status: status, event_pid, event_tid, time_stamp } = value as unknown as StatusEvent
  if (!hasMembers(extension, EXTENSION_MEMBERS) || !hasMembers(status, OPERATION_MEMBERS)) return undefined
  if (!Number.isInteger(status.duration)) return undefined
  const { name, version, is_internal, extension_type } = extension
  return {
    extension: { name, version, is_internal, extension_type },
    operation_status: {
      operation_success: status.operation_success,
      operation: status.operation,
      task_name: status.task_name,
      message: safeMessage(status.message),
      duration: status.duration,
    },
    event_pid,
    event_tid,
    time_stamp,
  }
}

type Members = Readonly<Record<string, 'string' | 'boolean' | 'number' | 'object'>>

const LOG_MEMBERS: Members = {
  EventLevel: 'string',
  Message: 'string',
  Version: 'string',
  TaskName: 'string',
  EventPid: 'string',
  EventTid: 'string',
  OperationId: 'string',
  TimeStamp: 'string',
}
const STATUS_MEMBERS: Members = {
  extension: 'object',
  operation_status: 'object',
  event_pid: 'string',
  event_tid: 'string',
  time_stamp: 'string',
}
const EXTENSION_MEMBERS: Members = {
  name: 'string',
  version: 'string',
  is_internal: 'boolean',
  extension_type: 'string',
}
const OPERATION_MEMBERS: Members = {
  operation_success: 'boolean',
  operation: 'string',
  task_name: 'string',
  message: 'string',
  duration: 'number',
}

function hasMembers(value: unknown, members: Members): boolean {
  if (!isJsonObject(value)) return false
  return Object.entries(members).every(([name, type]) => Object.hasOwn(value, name) && typeof value[name] === type)
}

function safeMessage(text: string): string {
  return cutUtf8(redactSecrets(cutUtf8(text, MAX_REDACTED_BYTES)), MAX_MESSAGE_BYTES)
}
