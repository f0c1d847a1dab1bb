/** `rules explain`: decides one request with the evaluator of the service, and says why. */

import { basename } from 'node:path'
import type { EndpointName } from '../base/endpoints.ts'
import type { RequestLine } from '../base/request-target.ts'
import { CANONICAL_METHODS } from '../rules/canonicalize.ts'
import { type CanonicalMode, decide, type RulesVerdict, type Verdict } from '../rules/decide.ts'
import { describeVerdict } from '../rules/describe.ts'
import { type RulesFile, RulesFileError, readRulesFile } from '../rules/rules-file.ts'
import { compileItem, type EndpointPolicy } from '../rules/snapshot.ts'
import type { Question } from './rules-arguments.ts'
import { type Answer, answerRefusal, formatJson, type ReadFile, type Refusal, readText, wrap } from './rules-print.ts'

/** A decision, and what both matchers said whatever the mode. */
export interface Explanation {
  readonly verdict: Verdict
  /** Absent when the rules were not asked. */
  readonly legacy: RulesVerdict | undefined
  readonly canonical: RulesVerdict | undefined
  readonly policy: EndpointPolicy | undefined
  /** What a reader should know besides. */
  readonly notes: readonly string[]
}

/** Runs the command. Exit code 0 for any verdict. */
export function explainFile(
  file: string,
  question: Question,
  canonicalMode: CanonicalMode,
  json: boolean,
  readFile: ReadFile,
): Answer {
  const rules = loadRules(file, readFile)
  if ('finding' in rules) return answerRefusal(rules, json)
  const explanation = explain(rules, question, canonicalMode)
  const out = json
    ? formatJson(describeAsJson(explanation, question, canonicalMode))
    : formatText(explanation, question)
  return { out, err: '', exitCode: 0 }
}

/** Reads a rules file. @returns the rules, or why they cannot be used. */
export function loadRules(file: string, readFile: ReadFile): RulesFile | Refusal {
  const text = readText(file, readFile)
  if (typeof text !== 'string') return text
  try {
    return readRulesFile(text, basename(file))
  } catch (error) {
    if (!(error instanceof RulesFileError)) throw error
    const { position, finding, message, hint } = error
    return { file, position, finding, message, hint }
  }
}

/** Decides one request on the rules of a file. */
export function explain(
  rules: RulesFile,
  { endpoint, caller, request }: Question,
  canonicalMode: CanonicalMode,
): Explanation {
  const item = rules.itemOf(endpoint)
  const policy = item === undefined ? undefined : compileItem(item, endpoint).result
  const ask = (mode: CanonicalMode) => decide(policy, endpoint, caller, request, { canonicalMode: mode })
  const { legacy, canonical } = ask('shadow')
  const notes = [...notesOnRules(rules, policy !== undefined), ...notesOnRequest(request)]
  return { verdict: ask(canonicalMode), legacy, canonical, policy, notes }
}

function notesOnRules({ format }: RulesFile, hasRules: boolean): string[] {
  if (format === 'local') {
    return [
      'A local rules file: decided as if the host sent nothing but the mode enforce; without a defaultAccess of its own, deny.',
    ]
  }
  return hasRules ? [] : ['The file has no rules for this endpoint.']
}

/** What a client would not send, or the service not take. */
function notesOnRequest({ method, target }: RequestLine): string[] {
  const notes: string[] = []
  if (!CANONICAL_METHODS.has(method)) {
    const methods = [...CANONICAL_METHODS].join(', ')
    notes.push(`The service refuses this method before it asks the rules: it takes ${methods}, in capitals.`)
  }
  if (!/^(\/|\*$|[a-z][a-z0-9+.-]*:\/\/)/i.test(target)) {
    notes.push(`The target does not begin with a slash: '${target.split('/')[0]}' is read as a host.`)
  }
  return notes
}

/** Writes an explanation as the object that `--json` prints. */
export function describeAsJson(
  { verdict, legacy, canonical, policy, notes }: Explanation,
  { endpoint }: { readonly endpoint: EndpointName },
  canonicalMode: CanonicalMode,
): object {
  const { reason } = verdict
  const granted = reason.kind === 'granted' ? reason : undefined
  return {
    verdict: verdict.outcome,
    decidedBy: verdict.decidedBy,
    explanation: describeVerdict(verdict),
    reason,
    privilege: granted?.privilege ?? (reason.kind === 'not-granted' ? (reason.privileges[0] ?? null) : null),
    role: granted?.role ?? null,
    identity: granted?.identity ?? null,
    endpoint,
    ruleSet: policy?.id ?? null,
    mode: policy?.mode ?? null,
    canonicalMode,
    legacy: legacy === undefined ? null : describeMatcher(legacy),
    canonical: canonical === undefined ? null : describeMatcher(canonical),
    notes,
  }
}

/** `{error: CODE}`, or whether it allows and why. */
function describeMatcher({ allowed, reason }: RulesVerdict): object {
  return reason.kind === 'canonical-error' ? { error: reason.code } : { allowed, reason }
}

function formatText({ verdict, legacy, canonical, policy, notes }: Explanation, question: Question): string {
  const { endpoint, caller, request } = question
  const who = [
    `user ${caller.userName}`,
    caller.groups.length === 0 ? 'no group' : `groups ${caller.groups.join(', ')}`,
    caller.exePath ?? 'executable not known',
    ...describeWorkload(caller),
    caller.elevated ? 'elevated' : 'not elevated',
  ]
  const row = (name: string, text: string) => wrap(text, ' '.repeat(LABEL), name.padEnd(LABEL))
  return [
    row('verdict', describeVerdict(verdict)),
    row('request', `${request.method} ${request.target} to ${endpoint}`),
    row('caller', who.join('; ')),
    row('rules', policy === undefined ? 'none' : describePolicy(policy)),
    row('legacy', describeMatcherText(legacy)),
    row('canonical', describeMatcherText(canonical)),
    ...notes.map((note) => row('note', note)),
  ].join('')
}

/** What only local rules ask for is shown when it is known. */
function describeWorkload({ exeSha256, cgroupPath, systemdUnit, containerId }: Question['caller']): string[] {
  return [
    ...(exeSha256 === undefined ? [] : [`SHA-256 ${exeSha256}`]),
    ...(cgroupPath === undefined ? [] : [`cgroup ${cgroupPath}`]),
    ...(systemdUnit === undefined ? [] : [`unit ${systemdUnit}`]),
    ...(containerId === undefined ? [] : [`container ${containerId}`]),
  ]
}

const LABEL = 'canonical  '.length

function describePolicy({ id, mode, defaultAllowed, privileges }: EndpointPolicy): string {
  const count = `${privileges.length} privilege${privileges.length === 1 ? '' : 's'}`
  return `${id === '' ? 'without an id' : id}; mode ${mode}; default ${defaultAllowed ? 'allow' : 'deny'}; ${count}`
}

function describeMatcherText(matcher: RulesVerdict | undefined): string {
  if (matcher === undefined) return 'not asked'
  const { allowed, reason } = matcher
  const sentence = describeVerdict({ outcome: allowed ? 'ok' : 'forbidden', decidedBy: 'endpoint', reason })
  return sentence.replace(/^(ok|forbidden)/, allowed ? 'allows' : 'denies')
}
