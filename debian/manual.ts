/**
 * Writes what the package says about the program, all from texts that exist already:
 *
 *   README.md, tables of options, exit statuses, keys, files ──┬──► azure-proxy-agent.8
 *   the text of --help, kinds of configuration keys ───────────┼──► proxy-agent.json.5
 *   debian/proxy-agent.json ───────────────────────────────────┴──► completions/azure-proxy-agent
 *
 * Usage: node debian/manual.ts FOLDER. test/debian/manual.test.ts holds the tables against the program.
 * Source: man-pages(7), groff_man(7).
 */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { USAGE } from '../src/cli/arguments.ts'
import { RULES_USAGE } from '../src/cli/rules-arguments.ts'
import { KEYS } from '../src/config/config.ts'
import { readChangelog } from './vendor.mjs'

const ROOT = dirname(import.meta.dirname)

/** A row of a table, cell by cell, in Markdown. */
export type Row = readonly string[]

/** Reads the rows below the heading row `columns` of README. @throws Error when there is no such table */
export function readTable(columns: readonly string[], text = readFileSync(join(ROOT, 'README.md'), 'utf8')): Row[] {
  const lines = text.split('\n')
  const at = lines.findIndex((line) => splitRow(line).join('|') === columns.join('|'))
  if (at === -1) throw new Error(`README.md has no table with the columns ${columns.join(', ')}`)
  const rest = lines.slice(at + 2)
  const end = rest.findIndex((line) => !line.startsWith('|'))
  return rest.slice(0, end).map(splitRow).flatMap(splitPair)
}

/** A bar inside a cell is written `\|`. */
function splitRow(line: string): string[] {
  if (!line.startsWith('|')) return []
  return line
    .slice(1, line.lastIndexOf('|'))
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll('\\|', '|'))
}

/** README puts two short rows into one, with dots between. */
function splitPair(row: Row): Row[] {
  const parts = row.map((cell) => cell.split(' · '))
  return parts[0]?.map((_, index) => parts.map((cell) => cell[index] ?? cell[0] ?? '')) ?? []
}

/** Markdown of one cell or paragraph in roff: code and emphasis, links as their text, and nothing that roff would read. */
export function toRoff(markdown: string): string {
  return markdown
    .replace(/\[([^\]]+)\]\([^)]*\)/g, '$1')
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/`([^`]+)`/g, '\\fB$1\\fR')
    .replace(/\*\(?([^*]+?)\)?\*/g, '\\fI$1\\fR')
    .replace(/^([.'])/gm, '\\&$1')
    .replace(/[→►]/g, '\\(->')
    .replaceAll('·', ',')
    .replaceAll('…', '...')
}

function tagged(tag: string, text: string): string {
  return `.TP\n${toRoff(tag)}\n${toRoff(text)}\n`
}

function heading(name: string, section: number): string {
  const { version, time } = readChangelog()
  const date = new Date(time * 1000).toISOString().slice(0, 10)
  return `.\\" Made by debian/manual.ts.\n.TH ${name} ${section} "${date}" "azure\\-proxy\\-agent ${version}" "System Administration Utilities"\n`
}

/** Names of the commands in a usage text. */
export function readCommands(usage: string): string[] {
  const part = /^Commands:\n([\s\S]*?)\n\n/m.exec(usage)?.[1] ?? ''
  return [...part.matchAll(/^ {2}([a-z]+)\b/gm)].map(([, name]) => name!)
}

/** Options of the usage text, short and long. */
export function readOptions(usage: string): string[] {
  return [...usage.matchAll(/^ {2}(-\w), (--[\w-]+)/gm)].flatMap(([, short, long]) => [short!, long!])
}

/** The first paragraph of `--help` after the synopsis. */
const PURPOSE = /\n\n([^\n]+)\n/.exec(USAGE)?.[1] ?? ''

export function renderProgramPage(): string {
  const options = readTable(['Option', 'Meaning'])
  const isOption = ([tag]: Row) => tag!.startsWith('`-')
  return [
    heading('AZURE\\-PROXY\\-AGENT', 8),
    '.SH NAME\nazure\\-proxy\\-agent \\- guard of the metadata services of an Azure virtual machine\n',
    '.SH SYNOPSIS\n.B azure\\-proxy\\-agent\n[\\fB\\-\\-config\\fR \\fIFILE\\fR] [\\fBconsole\\fR]\n.br\n',
    '.B azure\\-proxy\\-agent \\-\\-status\n[\\fB\\-\\-wait\\fR \\fISECONDS\\fR]\n.br\n',
    '.B azure\\-proxy\\-agent\n\\fICOMMAND\\fR ...\n.br\n.B azure\\-proxy\\-agent \\-\\-version\n',
    `.SH DESCRIPTION\n${toRoff(PURPOSE)}\n.PP\n`,
    'Without an argument it runs as a service until a signal ends it; it must be root, with the capabilities that the unit\n',
    'leaves it. SIGTERM and SIGINT end it in order; SIGHUP makes it ask the host and read local rules at once.\n',
    `.SH OPTIONS\n${options.filter(isOption).map(renderOption).join('')}`,
    `.SH COMMANDS\n${options
      .filter((row) => !isOption(row) && row[0]!.startsWith('`'))
      .map(renderOption)
      .join('')}`,
    `.SS Commands about rules\n.nf\n${renderLiteral(RULES_USAGE)}\n.fi\n`,
    `.SH "EXIT STATUS"\n${readTable(['Exit status', 'Meaning']).map(renderOption).join('')}`,
    '.SH FILES\n',
    tagged('`/etc/azure/proxy-agent.json`', 'Configuration, see `proxy-agent.json`(5).'),
    readTable(['Path', 'Mode', 'What'])
      .map(([path, mode, what]) => tagged(path!, mode === '' ? `${what}.` : `Mode ${mode}: ${what}.`))
      .join(''),
    '.SH "SEE ALSO"\n.BR proxy\\-agent.json (5),\n.BR systemctl (1),\n.BR journalctl (1),\n.BR systemd.service (5)\n',
  ].join('')
}

function renderOption([tag, meaning]: Row): string {
  return tagged(tag!, `${meaning}.`)
}

export function renderConfigPage(): string {
  const keys = readTable(['Key', 'Default', 'Meaning'])
  return [
    heading('PROXY\\-AGENT.JSON', 5),
    '.SH NAME\nproxy\\-agent.json \\- configuration of the Azure proxy agent\n',
    '.SH SYNOPSIS\n.I /etc/azure/proxy\\-agent.json\n',
    `.SH DESCRIPTION\n${toRoff(readIntroduction())}\n`,
    `.SH KEYS\n${keys.map(renderKey).join('')}`,
    `.SH EXAMPLE\n.nf\n${renderLiteral(readFileSync(join(ROOT, 'debian', 'proxy-agent.json'), 'utf8'))}\n.fi\n`,
    '.SH "SEE ALSO"\n.BR azure\\-proxy\\-agent (8)\n',
  ].join('')
}

/** What README says between the heading of the configuration and its table. */
function readIntroduction(): string {
  const text = readFileSync(join(ROOT, 'README.md'), 'utf8')
  return /### Configuration\n\n([\s\S]*?)\n\n\|/.exec(text)?.[1] ?? ''
}

function renderKey([key, fallback, meaning]: Row): string {
  const kinds = new Set(namesIn(key!).flatMap((name) => KEYS[name]?.kind ?? []))
  const kind = kinds.size === 1 ? [...kinds][0] : undefined
  const facts = [kind, fallback === 'required' ? 'required' : fallback && `default ${fallback}`].filter(Boolean)
  return tagged(facts.length > 0 ? `${key} (${facts.join(', ')})` : key!, `${meaning}.`)
}

/** The names in backticks of a cell. */
export function namesIn(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name!)
}

/** Text as it is, line by line. */
function renderLiteral(text: string): string {
  return text
    .trimEnd()
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1')
}

export function renderCompletion(): string {
  const words = [...readOptions(USAGE), ...readCommands(USAGE)].join(' ')
  return `# Made by debian/manual.ts.
_azure_proxy_agent()
{
    local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    case $prev in
        -c | --config) COMPREPLY=($(compgen -f -- "$cur")) ;;
        -w | --wait) ;;
        rules) COMPREPLY=($(compgen -W "${readCommands(RULES_USAGE).join(' ')}" -- "$cur")) ;;
        *)
            if [[ \${COMP_WORDS[1]} == rules && $COMP_CWORD -gt 2 ]]; then
                COMPREPLY=($(compgen -f -- "$cur"))
            else
                COMPREPLY=($(compgen -W "${words}" -- "$cur"))
            fi
            ;;
    esac
} &&
    complete -o filenames -F _azure_proxy_agent azure-proxy-agent
`
}

function main(folder: string): void {
  mkdirSync(join(folder, 'completions'), { recursive: true })
  writeFileSync(join(folder, 'azure-proxy-agent.8'), renderProgramPage())
  writeFileSync(join(folder, 'proxy-agent.json.5'), renderConfigPage())
  writeFileSync(join(folder, 'completions', 'azure-proxy-agent'), renderCompletion())
}

if (import.meta.main) main(process.argv[2] ?? join(ROOT, 'debian', 'build'))
