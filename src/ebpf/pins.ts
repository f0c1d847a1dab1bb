/**
 * Links and maps that outlive the agent: names in a bpf file system, which the kernel keeps until they are removed.
 *
 *     FOLDER/               0700, root's; whoever works in it holds a lock on it
 *       apa_sockops, …      links, by the name of their program: each keeps its program attached
 *       maps_LAYOUT/        a whole set of maps; LAYOUT is `layoutOf()` their specs. Sets may share maps
 *         policy, served, …
 *
 * Invariant: what is made or replaced appears in one step, by a rename. A name that ends in `_new` was never finished and
 * counts for nothing. This file system takes no dots in names.
 *
 * Nothing is believed because of its name: a link must be a link, a map of the shape that its spec asks for.
 * Source: kernel kernel/bpf/inode.c; bpf(2) BPF_OBJ_PIN, BPF_OBJ_GET.
 */

import {
  chmodSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  type Stats,
  statfsSync,
  unlinkSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { AgentError } from '../base/errors.ts'
import { BpfAttr, bpf, tryBpf } from '../sys/bpf.ts'
import { EAGAIN, errnoName } from '../sys/errno.ts'
import { Fd } from '../sys/fd.ts'
import { allocate, sysFlock } from '../sys/libc.ts'
import { isOfShape, KernelMap, type MapSpecs, type MapsOf } from './maps.ts'
import type { MapSpec } from './programs/maps.ts'

/** Source: linux/magic.h, BPF_FS_MAGIC. */
const BPF_FS_MAGIC = 0xcafe4a11

/** Source: fcntl.h. */
const LOCK_EX = 2
const LOCK_NB = 4

/** Offsets in `union bpf_attr` for BPF_OBJ_PIN and BPF_OBJ_GET. Source: linux/bpf.h. */
const OBJECT = { pathname: 0, bpfFd: 8, bytes: 16 } as const

const SET_PREFIX = 'maps_'
const UNFINISHED = '_new'
const FOLDER_MODE = 0o700
const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000

/** A folder of pins, ours as long as it is open: a second process is refused. */
export class PinFolder implements Disposable {
  readonly path: string
  readonly #folder: Fd

  /** See `openPinFolder()`. */
  constructor(path: string, folder: Fd) {
    this.path = path
    this.#folder = folder
  }

  /** Finds the link under `name`; `undefined` when there is none, or something else. */
  findLink(name: string): Fd | undefined {
    return getObject(join(this.path, name), 'link')
  }

  /** Tells whether any link is pinned: then programs of an earlier agent are at work. */
  hasLinks(): boolean {
    return readdirSync(this.path).some((name) => {
      const link = this.findLink(name)
      link?.close()
      return link !== undefined
    })
  }

  /** Puts `link` under `name`, in place of what is there: that loses its hold on the kernel. @throws SyscallError */
  pinLink(link: Fd, name: string): void {
    const path = join(this.path, name)
    const fresh = `${path}${UNFINISHED}`
    removeTree(fresh)
    pinObject(link.number, fresh, link.label)
    if (lstatIfThere(path)?.isDirectory()) removeTree(path)
    renameSync(fresh, path)
  }

  /**
   * Opens the set of maps that has this layout. A set in which one is missing or of another shape is none.
   * @returns maps by name, to be closed by the caller
   */
  findMaps<Specs extends MapSpecs>(layout: string, specs: Specs): MapsOf<Specs> | undefined {
    return getMaps(join(this.path, SET_PREFIX + layout), specs)
  }

  /** As `findMaps()`, but the first set that has these maps, of those whose layout begins like this. */
  findMapsAmong<Specs extends MapSpecs>(beginning: string, specs: Specs): MapsOf<Specs> | undefined {
    for (const set of this.#sets()) {
      const maps = set.startsWith(SET_PREFIX + beginning) ? getMaps(join(this.path, set), specs) : undefined
      if (maps !== undefined) return maps
    }
    return undefined
  }

  /** Opens the map that `spec` describes in every set that has it, whatever the set's layout. */
  findMapInAnySet(spec: MapSpec): KernelMap[] {
    return this.#sets().flatMap((set) => getMap(join(this.path, set, spec.name), spec) ?? [])
  }

  /** Puts the whole set in place; another one of the same layout goes. @throws SyscallError, NodeJS.ErrnoException */
  pinMaps(layout: string, maps: Readonly<Record<string, KernelMap>>): void {
    const set = join(this.path, SET_PREFIX + layout)
    const fresh = `${set}${UNFINISHED}`
    removeTree(fresh)
    mkdirSync(fresh, { mode: FOLDER_MODE })
    for (const [name, map] of Object.entries(maps)) pinObject(map.fd, join(fresh, name), `map "${name}"`)
    removeTree(set)
    renameSync(fresh, set)
  }

  /** Removes what belongs neither to this layout nor to these links: leftovers of other versions and of crashes. */
  removeOthers(layout: string, links: readonly string[]): void {
    const kept = new Set([SET_PREFIX + layout, ...links])
    for (const name of readdirSync(this.path)) if (!kept.has(name)) removeTree(join(this.path, name))
  }

  /** Tells whether the folder is still the one under its path. */
  isInPlace(): boolean {
    return lstatIfThere(this.path)?.ino === fstatSync(this.#folder.number).ino
  }

  /** Tells whether these links and this set are in it, by name. */
  isWhole(layout: string, links: readonly string[]): boolean {
    return [SET_PREFIX + layout, ...links].every((name) => lstatIfThere(join(this.path, name)) !== undefined)
  }

  /** Removes the folder and all in it. Links that nobody else holds are detached with that. */
  remove(): void {
    removePins(this.path)
  }

  [Symbol.dispose](): void {
    this.#folder.close()
  }

  #sets(): string[] {
    return readdirSync(this.path).filter((name) => name.startsWith(SET_PREFIX) && !name.endsWith(UNFINISHED))
  }
}

/**
 * Makes the folder if it is not there, and opens it.
 * @throws AgentError code PINS_NOT_POSSIBLE when no bpf file system is there, PINS_NOT_OURS when somebody else made what is,
 * PINS_IN_USE when another process works in it
 */
export function openPinFolder(path: string): PinFolder {
  checkParent(path)
  if (lstatIfThere(path) === undefined) {
    mkdirSync(path, { mode: FOLDER_MODE })
    chmodSync(path, FOLDER_MODE)
  }
  return openChecked(path)
}

/** As `openPinFolder()`, but makes nothing. @returns `undefined` when there is no such folder */
export function findPinFolder(path: string): PinFolder | undefined {
  if (lstatIfThere(path) === undefined) return undefined
  checkParent(path)
  return openChecked(path)
}

/**
 * Removes the folder and all in it, locked or not: connect programs first, so that nothing is redirected without a record.
 * @returns the names of what was removed, in that order
 * @throws AgentError code PINS_NOT_OURS, PINS_NOT_POSSIBLE
 */
export function removePins(path: string): string[] {
  if (lstatIfThere(path) === undefined) return []
  checkParent(path)
  openFolder(path).close()
  const names = readdirSync(path).sort()
  for (const name of names) removeTree(join(path, name))
  rmdirSync(path)
  return [...names.map((name) => join(path, name)), path]
}

/** The kernel looks at the file system when it pins, but a folder elsewhere would be made before that. */
function checkParent(path: string): void {
  const parent = dirname(path)
  const refuse = (why: string) => {
    const hint = 'systemd mounts one at /sys/fs/bpf; by hand: mount -t bpf bpf /sys/fs/bpf'
    return new AgentError('PINS_NOT_POSSIBLE', `Cannot pin in ${path}: ${parent} ${why}`, { hint })
  }
  const stats = lstatIfThere(parent)
  if (stats === undefined || statfsSync(parent).type !== BPF_FS_MAGIC) throw refuse('is no bpf file system')
  const isOpen = (stats.mode & WRITABLE_BY_OTHERS) !== 0 && (stats.mode & STICKY) === 0
  if (stats.uid !== 0 || isOpen) throw notOurs(parent, 'others may replace what is in it')
}

function openChecked(path: string): PinFolder {
  using undo = new DisposableStack()
  const folder = undo.use(openFolder(path))
  const locked = sysFlock(folder.number, LOCK_EX | LOCK_NB)
  if (locked === -EAGAIN) throw new AgentError('PINS_IN_USE', `Cannot use ${path}: another agent holds it`)
  if (locked < 0) throw new AgentError('PINS_IN_USE', `Cannot lock ${path}: kernel answered ${errnoName(-locked)}`)
  undo.move()
  return new PinFolder(path, folder)
}

/** @throws AgentError code PINS_NOT_OURS unless it is a directory that root made, for root alone, in the bpf file system */
function openFolder(path: string): Fd {
  let folder: Fd
  try {
    folder = new Fd(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW), path)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why = code === 'ELOOP' || code === 'ENOTDIR' ? 'it is a link or no directory' : String(code)
    throw notOurs(path, why, { cause })
  }
  using undo = new DisposableStack()
  undo.use(folder)
  const { uid, mode } = fstatSync(folder.number)
  if (uid !== 0) throw notOurs(path, `it belongs to user ${uid}`)
  if ((mode & 0o077) !== 0) throw notOurs(path, 'others may look into it')
  if (statfsSync(path).type !== BPF_FS_MAGIC) throw notOurs(path, 'something is mounted there')
  undo.move()
  return folder
}

function notOurs(path: string, why: string, options?: ErrorOptions): AgentError {
  const hint = 'it is used only when root made it for root alone: find out who did, and remove it'
  return new AgentError('PINS_NOT_OURS', `Cannot use ${path}: ${why}`, { hint }, options)
}

function pinObject(fd: number, path: string, what: string): void {
  const attr = new BpfAttr(OBJECT.bytes).pointer(OBJECT.pathname, cString(path)).u32(OBJECT.bpfFd, fd)
  bpf('BPF_OBJ_PIN', attr, `pin ${what} as ${path}`)
}

/** Opens what is pinned under `path` if it is of that kind; whatever else is there is as good as nothing. */
function getObject(path: string, kind: 'link' | 'map'): Fd | undefined {
  const result = tryBpf('BPF_OBJ_GET', new BpfAttr(OBJECT.bytes).pointer(OBJECT.pathname, cString(path)))
  if (result < 0) return undefined
  const fd = new Fd(result, `${kind} ${path}`)
  if (KINDS[kind].test(readlinkSync(`/proc/self/fd/${fd.number}`))) return fd
  fd.close()
  return undefined
}

/** What the kernel calls them. Source: kernel/bpf/syscall.c, anon_inode_getfd(). */
const KINDS = { link: /^anon_inode:\[?bpf[-_]link\]?$/, map: /^anon_inode:\[?bpf-map\]?$/ } as const

function getMaps<Specs extends MapSpecs>(set: string, specs: Specs): MapsOf<Specs> | undefined {
  using found = new DisposableStack()
  const maps: Record<string, KernelMap> = {}
  for (const [name, spec] of Object.entries(specs)) {
    const map = getMap(join(set, name), spec)
    if (map === undefined) return undefined
    maps[name] = found.use(map)
  }
  found.move()
  return maps as MapsOf<Specs>
}

function getMap(path: string, spec: MapSpec): KernelMap | undefined {
  const fd = getObject(path, 'map')
  if (fd === undefined) return undefined
  if (isOfShape(fd, spec)) return new KernelMap(spec, fd)
  fd.close()
  return undefined
}

function cString(text: string): Buffer {
  const bytes = allocate(Buffer.byteLength(text) + 1)
  bytes.write(text)
  return bytes
}

function lstatIfThere(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false })
}

/** Removes a name and all below it, without following links. What is gone already is what we want. */
function removeTree(path: string): void {
  const stats = lstatIfThere(path)
  if (stats?.isDirectory()) {
    for (const name of readdirSync(path)) removeTree(join(path, name))
    rmdirSync(path)
  } else if (stats !== undefined) unlinkSync(path)
}
