/**
 * How long rules take: compiling a document, and deciding a request on it. `npm run bench -- rules`.
 *
 * Figures are the best of several rounds of one run, since other work on the machine only ever adds. Nothing is asserted:
 * a machine that is slow today is no fault of the code.
 */

import { decide } from '../../src/rules/decide.ts'
import type { AuthorizationItem } from '../../src/rules/document.ts'
import { compileItem } from '../../src/rules/snapshot.ts'

const ROUNDS = 7
const CALLS = 2000

const CALLER = { userName: 'alice', groups: ['users'], exePath: '/usr/bin/curl', processName: 'curl', elevated: false }
const HIT = { method: 'GET', target: '/metadata/service-7/token?api-version=2018-02-01&resource=https%3A%2F%2Fx%2F' }
const MISS = { method: 'GET', target: '/metadata/instance?api-version=2021-02-01' }

/** A document in which the caller holds the privilege that `HIT` needs, as the last of its identities. */
function makeItem(privileges: number, identities: number): AuthorizationItem {
  const numbers = (count: number) => Array.from({ length: count }, (_, i) => i)
  return {
    defaultAccess: 'deny',
    mode: 'enforce',
    id: 'bench',
    rules: {
      privileges: numbers(privileges).map((i) => ({
        name: `p${i}`,
        path: `/metadata/service-${i}/token`,
        queryParameters: { 'api-version': '2018-02-01' },
      })),
      roles: numbers(privileges).map((i) => ({ name: `r${i}`, privileges: [`p${i}`] })),
      identities: [
        ...numbers(identities - 1).map((i) => ({ name: `i${i}`, userName: `user${i}`, exePath: `/usr/bin/x${i}` })),
        { name: 'last', userName: 'alice', exePath: '/usr/bin/curl' },
      ],
      roleAssignments: numbers(Math.min(privileges, 8)).map((i) => ({
        role: `r${i}`,
        identities: [...numbers(identities - 1).map((n) => `i${n}`), 'last'],
      })),
    },
  }
}

/** Runs `action` `calls` times in each round. @returns microseconds for one call, of the best round */
function best(calls: number, action: () => void): number {
  let bestUs = Number.POSITIVE_INFINITY
  for (let round = 0; round < ROUNDS; round++) {
    const startMs = performance.now()
    for (let i = 0; i < calls; i++) action()
    bestUs = Math.min(bestUs, ((performance.now() - startMs) * 1000) / calls)
  }
  return bestUs
}

const rows: Record<string, number>[] = []
for (const [privileges, identities] of [
  [10, 10],
  [100, 10],
  [100, 100],
  [1000, 10],
  [1000, 100],
] as const) {
  const item = makeItem(privileges, identities)
  const compileMs = best(3, () => compileItem(item, 'imds')) / 1000
  const { result: policy } = compileItem(item, 'imds')
  const decideUs = (canonicalMode: 'off' | 'enforce', request: typeof HIT) =>
    best(CALLS, () => decide(policy, 'imds', CALLER, request, { canonicalMode }))
  rows.push({
    privileges,
    identities,
    'compile ms': Number(compileMs.toFixed(2)),
    'hit us': Number(decideUs('off', HIT).toFixed(2)),
    'miss us': Number(decideUs('off', MISS).toFixed(2)),
    'hit us, canonical': Number(decideUs('enforce', HIT).toFixed(2)),
    'miss us, canonical': Number(decideUs('enforce', MISS).toFixed(2)),
  })
}

const names = Object.keys(rows[0] as object)
const line = (cells: readonly (string | number)[]) =>
  cells.map((cell, i) => String(cell).padStart((names[i] as string).length + 2)).join('')
process.stdout.write(`${[line(names), ...rows.map((row) => line(Object.values(row)))].join('\n')}\n`)
process.stdout.write(`${JSON.stringify({ bench: 'rules', node: process.version, rows })}\n`)
