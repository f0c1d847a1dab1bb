/** `rules check`: what an author would want to know about rules before they are in force. */

import { basename } from 'node:path'
import { formatJsonPath } from '../base/json.ts'
import type { Finding } from '../rules/lint/finding.ts'
import { lintRules } from '../rules/lint/lint-rules.ts'
import { type Answer, formatFinding, formatJson, type ReadFile, readText } from './rules-print.ts'

interface CheckedFile {
  readonly file: string
  readonly format: string | undefined
  readonly findings: readonly Finding[]
}

/** Checks files one by one. Exit code 1 when one of them has an error; warnings are for people. */
export function checkFiles(files: readonly string[], json: boolean, readFile: ReadFile): Answer {
  const checked = files.map((file) => checkFile(file, readFile))
  const all = checked.flatMap(({ findings }) => findings)
  const errors = all.filter(({ severity }) => severity === 'error').length
  const warnings = all.length - errors
  const out = json ? formatJson(describe(checked, errors, warnings)) : formatText(checked, errors, warnings)
  return { out, err: '', exitCode: errors > 0 ? 1 : 0 }
}

function checkFile(file: string, readFile: ReadFile): CheckedFile {
  const text = readText(file, readFile)
  if (typeof text === 'string') return { file, ...lintRules(text, basename(file)) }
  const { finding: code, ...rest } = text
  return { file, format: undefined, findings: [{ ...rest, code, severity: 'error', path: [] }] }
}

function formatText(checked: readonly CheckedFile[], errors: number, warnings: number): string {
  const lines = checked.flatMap(({ file, findings }) =>
    findings.map(({ position, severity, message, code, hint }) =>
      formatFinding(file, position, severity, message, code, hint),
    ),
  )
  const count = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`
  return `${lines.join('')}${count(checked.length, 'file')}: ${count(errors, 'error')}, ${count(warnings, 'warning')}\n`
}

function describe(checked: readonly CheckedFile[], errors: number, warnings: number): object {
  return {
    errors,
    warnings,
    files: checked.map(({ file, format, findings }) => ({
      file,
      format: format ?? null,
      findings: findings.map(({ severity, code, message, hint, path, position }) => ({
        severity,
        code,
        message,
        hint,
        ...position,
        path: formatJsonPath(path),
      })),
    })),
  }
}
