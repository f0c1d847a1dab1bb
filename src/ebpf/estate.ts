/**
 * What an agent leaves to the next one: its maps and links, pinned. Taken over at start, left when it fails closed.
 *
 * The order of things, so that a crash between two of them leaves the door shut and the next agent a way on:
 *
 *     1  adopt the maps, or make new ones with the old policy in them    nobody uses the new ones yet
 *     2  pin the new set, whole                                          two sets are there; links use the old one
 *     3  replace the program behind each link                            see below
 *     4  pin links that are new; remove everything else                  the old set goes
 *
 * Where the layout has changed, but not that of records, the maps of records are shared by the old set and the new one: clients
 * that wait in the listener's queue are known, and so is who connects in the middle of step 3, whichever program he meets.
 * Where that of records has changed, the two are turned away.
 */

import type { InetAddress } from '../base/endpoints.ts'
import type { Fd } from '../sys/fd.ts'
import { isLinkOf, updateLink } from './attach.ts'
import type { KernelMap, MapSpecs, MapsOf } from './maps.ts'
import { openPinFolder, type PinFolder } from './pins.ts'
import { layoutOf, RECORD_MAPS, recordsLayout } from './programs/maps.ts'
import type { ProgramSpec } from './programs/program.ts'
import { encodeEndpoint, POLICY_FOR_OTHERS } from './records.ts'

type Maps = Readonly<Record<string, KernelMap>> & { readonly policy: KernelMap }

/** What of an earlier agent was taken over; `records`: the maps of connections in the making. */
export type Adopted = 'nothing' | 'links' | 'links and records' | 'links and maps'

/** See above. Owns the folder. */
export class Estate implements Disposable {
  /** Whether links and maps are left when this process ends. */
  readonly failClosed: boolean
  #folder: PinFolder
  readonly #guarded: readonly InetAddress[]
  #adoptedMaps: 'all' | 'records' | 'none' = 'none'
  #adoptedLinks = 0
  #maps: Maps | undefined
  #links: readonly (readonly [name: string, link: Fd])[] = []

  /** @param guarded is redirected when links were left and no policy that can be read */
  constructor(folder: PinFolder, failClosed: boolean, guarded: readonly InetAddress[]) {
    this.#folder = folder
    this.failClosed = failClosed
    this.#guarded = guarded
  }

  /** What was taken over, once links have been asked for. */
  get adopted(): Adopted {
    if (this.#adoptedLinks === 0) return 'nothing'
    return ({ all: 'links and maps', records: 'links and records', none: 'links' } as const)[this.#adoptedMaps]
  }

  /**
   * Opens the maps of an earlier agent: all if their layout is that of `specs`, else those of records if theirs is.
   * They are the caller's.
   */
  adoptMaps<Specs extends MapSpecs>(specs: Specs): Partial<MapsOf<Specs>> {
    const all = this.#folder.findMaps(layoutOf(specs), specs)
    const ofRecords = Object.fromEntries(RECORD_MAPS.flatMap((name) => (specs[name] ? [[name, specs[name]]] : [])))
    const records = all === undefined ? this.#folder.findMapsAmong(`${recordsLayout()}_`, ofRecords) : undefined
    this.#adoptedMaps = all !== undefined ? 'all' : records !== undefined ? 'records' : 'none'
    return all ?? (records as Partial<MapsOf<Specs>> | undefined) ?? {}
  }

  /** Fills in what maps that were not adopted have to go on with, and pins them. @throws SyscallError */
  bequeathMaps(maps: Maps): void {
    this.#maps = maps
    if (this.#adoptedMaps === 'all') return
    this.#inheritPolicy(maps.policy)
    if (this.failClosed) this.#folder.pinMaps(layoutOfMaps(maps), maps)
  }

  /**
   * Puts `program` behind the link that an earlier agent left at this hook of this cgroup.
   * @returns the link, the caller's to close; `undefined` when there is none
   */
  adoptLink(spec: ProgramSpec, program: Fd, cgroup: Fd): Fd | undefined {
    const link = this.#folder.findLink(spec.name)
    if (link === undefined) return undefined
    try {
      if (isLinkOf(link, spec.attachType!, cgroup)) {
        updateLink(link, program)
        this.#adoptedLinks += 1
        return link
      }
    } catch (error) {
      link.close()
      throw error
    }
    link.close()
    return undefined
  }

  /** Pins links, or when nothing is to be left, unpins all: they hold by their descriptors then. @throws SyscallError */
  bequeathLinks(links: readonly (readonly [name: string, link: Fd])[]): void {
    this.#links = links
    if (!this.failClosed) {
      this.#folder.remove()
      return
    }
    // Connect programs first: a crash in between leaves the door shut, though nobody is known there.
    for (const [name, link] of links.toReversed()) this.#folder.pinLink(link, name)
    this.#folder.removeOthers(layoutOfMaps(this.#maps!), this.#linkNames())
  }

  /** Pins everything again if somebody has unpinned a part. @returns whether there was something to do */
  restore(): boolean {
    if (!this.failClosed || this.#maps === undefined) return false
    const layout = layoutOfMaps(this.#maps)
    const isInPlace = this.#folder.isInPlace()
    if (isInPlace && this.#folder.isWhole(layout, this.#linkNames())) return false
    if (!isInPlace) {
      const fresh = openPinFolder(this.#folder.path)
      this.#folder[Symbol.dispose]()
      this.#folder = fresh
    }
    this.#folder.pinMaps(layout, this.#maps)
    this.bequeathLinks(this.#links)
    return true
  }

  /** Lets another agent in. What is pinned stays. */
  [Symbol.dispose](): void {
    this.#folder[Symbol.dispose]()
  }

  #inheritPolicy(policy: KernelMap): void {
    using old = new DisposableStack()
    const earlier = this.#folder.findMapInAnySet(policy.spec).map((map) => old.use(map))
    for (const map of earlier) {
      for (const key of map.keys()) policy.update(key, map.lookup(key) ?? FOR_OTHERS)
    }
    if (earlier.length > 0 || !this.#folder.hasLinks()) return
    for (const entry of this.#guarded) policy.update(encodeEndpoint(entry), FOR_OTHERS)
  }

  #linkNames(): string[] {
    return this.#links.map(([name]) => name)
  }
}

const FOR_OTHERS = Buffer.from([POLICY_FOR_OTHERS, 0, 0, 0])

function layoutOfMaps(maps: Maps): string {
  return layoutOf(Object.fromEntries(Object.entries(maps).map(([name, { spec }]) => [name, spec])))
}
