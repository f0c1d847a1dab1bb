/**
 * How long rules take: compiling a document, and deciding a request on it. `npm run bench -- rules`.
 *
 * Figures are the best of several rounds of one run, since other work on the machine only ever adds. Nothing is asserted:
 * a machine that is slow today is no fault of the code.
 */

import { decide } from '../../src/rules/decide.ts'
import type { AuthorizationItem } from '../../src/rules/document.ts'
import { compileItem } from '../../src/rules/snapshot.ts'
import { type Cell, renderTable, round } from './table.ts'

const ROUNDS = 7
const CALLS = 2000

const CALLER = { userName: 'alice', groups: ['users'], exePath: '/usr/bin/curl', processName: 'curl', elevated: false }
const QUERY = '?api-version=2018-02-01&resource=https%3A%2F%2Fx%2F'
const PARAMETERS = { 'api-version': '2018-02-01' }

/** Rule sets of the same size that differ in what makes a matcher work. */
interface Shape {
  readonly situation: string
  path(index: number): string
  readonly parameters: (index: number) => Readonly<Record<string, string>>
  /** Whom the identities describe, all but the last, which is the caller. */
  readonly identity?: (index: number) => Readonly<Record<string, string>>
  /** Path and query of a request that the privilege of this index is for; 0 is the only one granted to the caller. */
  target(index: number): string
}

const USUAL: Shape = {
  situation: 'different paths',
  path: (index) => `/metadata/service-${index}/token`,
  parameters: () => PARAMETERS,
  target: (index) => `/metadata/service-${index}/token${QUERY}`,
}

const SHAPES: readonly Shape[] = [
  USUAL,
  {
    ...USUAL,
    situation: 'long paths alike',
    path: (index) => `/${'metadata/'.repeat(40)}${index}`,
    target: (index) => `/${'metadata/'.repeat(40)}${index}${QUERY}`,
  },
  {
    ...USUAL,
    situation: 'paths in paths',
    path: (index) => '/m'.repeat(index + 1),
    target: (index) => `${'/m'.repeat(index + 1)}${QUERY}`,
  },
  {
    ...USUAL,
    situation: 'one path, a parameter',
    path: () => '/metadata/token',
    parameters: (index) => ({ ...PARAMETERS, resource: `https://x/${index}` }),
    target: (index) => `/metadata/token?api-version=2018-02-01&resource=https%3A%2F%2Fx%2F${index}`,
  },
  {
    ...USUAL,
    situation: 'one path, all match',
    path: () => '/metadata/token',
    target: () => `/metadata/token${QUERY}`,
  },
  {
    ...USUAL,
    situation: 'callers of one program',
    identity: (index) => ({ userName: `user${index}`, exePath: '/usr/bin/curl' }),
  },
  {
    ...USUAL,
    situation: 'programs of one caller',
    identity: (index) => ({ userName: 'alice', exePath: `/usr/bin/x${index}` }),
  },
]

/** A document in which the caller holds the first privilege, and others hold all of them. */
function makeItem(shape: Shape, privileges: number, identities: number): AuthorizationItem {
  const numbers = (count: number) => Array.from({ length: count }, (_, i) => i)
  const others = numbers(identities - 1)
  const describe = shape.identity ?? ((i: number) => ({ userName: `user${i}`, exePath: `/usr/bin/x${i}` }))
  return {
    defaultAccess: 'deny',
    mode: 'enforce',
    id: 'bench',
    rules: {
      privileges: numbers(privileges).map((i) => ({
        name: `p${i}`,
        path: shape.path(i),
        queryParameters: shape.parameters(i),
      })),
      roles: numbers(privileges).map((i) => ({ name: `r${i}`, privileges: [`p${i}`] })),
      identities: [
        ...others.map((i) => ({ name: `i${i}`, ...describe(i) })),
        { name: 'last', userName: 'alice', exePath: '/usr/bin/curl' },
      ],
      roleAssignments: numbers(privileges).map((i) => ({
        role: `r${i}`,
        identities: [...others.map((n) => `i${n}`), ...(i === 0 ? ['last'] : [])],
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

type Row = Record<string, Cell>

/** Granted: the caller holds what matches. Denied: others hold it. Missed: nothing matches. */
function measure(shape: Shape, privileges: number, identities: number): Row {
  const item = makeItem(shape, privileges, identities)
  const compileMs = best(3, () => compileItem(item, 'imds')) / 1000
  const { result: policy } = compileItem(item, 'imds')
  const decideUs = (canonicalMode: 'off' | 'enforce', target: string) =>
    Number(best(CALLS, () => decide(policy, 'imds', CALLER, { method: 'GET', target }, { canonicalMode })).toFixed(2))
  const last = shape.target(privileges - 1)
  return {
    'rule set': shape.situation,
    privileges,
    identities,
    'compile ms': round(compileMs),
    'granted us': decideUs('off', shape.target(0)),
    'denied us': decideUs('off', last),
    'missed us': decideUs('off', `/x${last}`),
    'granted us, both': decideUs('enforce', shape.target(0)),
    'denied us, both': decideUs('enforce', last),
    'missed us, both': decideUs('enforce', `/x${last}`),
  }
}

const rows: Row[] = []
for (const [privileges, identities] of [
  [10, 10],
  [10, 100],
  [100, 10],
  [1000, 10],
  [1000, 100],
] as const) {
  rows.push(measure(USUAL, privileges, identities))
}
for (const shape of SHAPES.slice(1)) rows.push(measure(shape, 1000, 100))

process.stdout.write(renderTable(rows))
process.stdout.write(`${JSON.stringify({ bench: 'rules', node: process.version, rows })}\n`)
