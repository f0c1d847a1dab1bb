/**
 * Does an identity of the rule document describe this caller?
 *
 * All selectors present must match; an identity without any describes everybody. What is not known about a caller matches no
 * selector, whatever it says: a process that vanished is nobody in particular.
 */

import type { Identity } from './document.ts'

/**
 * What the rules read of a caller. `exePath` and `processName` are `undefined` when they are not known for certain (the process
 * is gone, or another one by now); `groups` are names; a user without a name is called `undefined`, as rule authors know it.
 */
export interface RuleCaller {
  readonly userName: string
  readonly groups: readonly string[]
  readonly exePath: string | undefined
  readonly processName: string | undefined
  readonly elevated: boolean
  /** The next four are `undefined` as well when they are not known for certain; the hash also while no rule asks for one. */
  readonly cgroupPath?: string | undefined
  readonly systemdUnit?: string | undefined
  readonly containerId?: string | undefined
  /** Lower case. */
  readonly exeSha256?: string | undefined
}

/** An identity, and what is known about it before any caller comes. */
export interface CompiledIdentity extends Identity {
  /** Its place among the identities of its policy, from 0. */
  readonly index: number
  /** An empty selector identifies nobody; some agents write "unknown" that way on the other side of the comparison. */
  readonly matchesNobody: boolean
  /** `exePath` as `matchesIdentity` compares it. */
  readonly comparableExePath: string | undefined
  /** Likewise. */
  readonly comparableCgroupPath: string | undefined
}

/** Prepares an identity for many comparisons. `index` is its place among those of its policy. */
export function compileIdentity(identity: Identity, index: number): CompiledIdentity {
  const { exePath, cgroupPath, containerId, exeSha256 } = identity
  return {
    ...identity,
    ...(containerId !== undefined && { containerId: containerId.toLowerCase() }),
    ...(exeSha256 !== undefined && { exeSha256: exeSha256.toLowerCase() }),
    index,
    matchesNobody: selectorsOf(identity).includes(''),
    comparableExePath: exePath === undefined ? undefined : comparablePath(exePath),
    comparableCgroupPath: cgroupPath === undefined ? undefined : comparablePath(cgroupPath),
  }
}

/** A caller prepared for many comparisons: what takes work is worked out once, when the first identity asks for it. */
export class ComparableCaller {
  readonly caller: RuleCaller
  #exePath: string | undefined
  #groups: ReadonlySet<string> | undefined

  constructor(caller: RuleCaller) {
    this.caller = caller
  }

  /** The executable as `compileIdentity` writes a path; `undefined` when it is not known. */
  get exePath(): string | undefined {
    const { exePath } = this.caller
    if (exePath !== undefined) this.#exePath ??= comparablePath(exePath)
    return this.#exePath
  }

  /** A caller may be in thousands of groups and a document name thousands; with a few, looking is quicker than indexing. */
  isIn(groupName: string): boolean {
    const { groups } = this.caller
    if (groups.length <= FEW_GROUPS) return groups.includes(groupName)
    this.#groups ??= new Set(groups)
    return this.#groups.has(groupName)
  }
}

const FEW_GROUPS = 16

/** Tells whether every selector of the identity holds for the caller. Names are compared exactly: case and spelling count. */
export function matchesIdentity(identity: CompiledIdentity, comparable: ComparableCaller): boolean {
  const { caller } = comparable
  return (
    !identity.matchesNobody &&
    (identity.userName === undefined || identity.userName === caller.userName) &&
    (identity.processName === undefined || identity.processName === caller.processName) &&
    (identity.comparableExePath === undefined || identity.comparableExePath === comparable.exePath) &&
    (identity.groupName === undefined || comparable.isIn(identity.groupName)) &&
    (identity.systemdUnit === undefined || identity.systemdUnit === caller.systemdUnit) &&
    (identity.containerId === undefined || identity.containerId === caller.containerId) &&
    (identity.exeSha256 === undefined || identity.exeSha256 === caller.exeSha256) &&
    (identity.comparableCgroupPath === undefined || isBelow(caller.cgroupPath, identity.comparableCgroupPath))
  )
}

/** Tells whether a path is `top` or leads on from it, by whole names. Paths that the kernel prints need no work. */
function isBelow(path: string | undefined, top: string): boolean {
  return path !== undefined && (path === top || path.startsWith(top === '/' ? top : `${top}/`))
}

/** Tells whether an identity has no selector and hence describes every caller. */
export function matchesEveryone(identity: Identity): boolean {
  return selectorsOf(identity).every((selector) => selector === undefined)
}

/** All selectors of an identity; absent ones are `undefined`. */
export function selectorsOf(identity: Identity): (string | undefined)[] {
  const { userName, groupName, exePath, processName, cgroupPath, systemdUnit, containerId, exeSha256 } = identity
  return [userName, groupName, exePath, processName, cgroupPath, systemdUnit, containerId, exeSha256]
}

/**
 * Writes a path so that equal sequences of components are equal text: repeated and trailing slashes and inner `.` go.
 * A leading `.` of a relative path stays, `..` is not resolved and links are not followed: the file is not looked at.
 */
function comparablePath(path: string): string {
  if (!MAY_NEED_WORK.test(path)) return path
  const isAbsolute = path.startsWith('/')
  const components = path
    .split('/')
    .filter((part, index) => part !== '' && (part !== '.' || (index === 0 && !isAbsolute)))
  return (isAbsolute ? '/' : '') + components.join('/')
}

/** Two slashes in a row, a `.` component behind a slash, or a slash at the end. Paths that the kernel prints have none of them. */
const MAY_NEED_WORK = /\/(?:\.?\/|\.?$)/
