/** Reads 64-bit little-endian ELF files for the build tests: as little as they ask for. Source: elf(5). */

export interface Section {
  readonly name: string
  readonly address: number
  /** A view of the file. */
  readonly content: Buffer
}

/** Lists the sections with their bytes; those that occupy none in the file are empty. */
export function readSections(elf: Buffer): Section[] {
  const SHT_NOBITS = 8
  const table = Number(elf.readBigUInt64LE(40))
  const namesAt = Number(elf.readBigUInt64LE(table + elf.readUInt16LE(62) * 64 + 24))
  return Array.from({ length: elf.readUInt16LE(60) }, (_, index) => {
    const at = table + index * 64
    const nameAt = namesAt + elf.readUInt32LE(at)
    const offset = Number(elf.readBigUInt64LE(at + 24))
    const sizeBytes = elf.readUInt32LE(at + 4) === SHT_NOBITS ? 0 : Number(elf.readBigUInt64LE(at + 32))
    return {
      name: elf.toString('latin1', nameAt, elf.indexOf(0, nameAt)),
      address: Number(elf.readBigUInt64LE(at + 16)),
      content: elf.subarray(offset, offset + sizeBytes),
    }
  })
}

/** @throws Error when there is no section of that name */
export function findSection(elf: Buffer, name: string): Section {
  const found = readSections(elf).find((section) => section.name === name)
  if (found === undefined) throw new Error(`no section ${name}`)
  return found
}

/** Names the libraries that the loader brings in for the file, in order. */
export function readNeeded(elf: Buffer): string[] {
  const DT_NEEDED = 1n
  const dynamic = findSection(elf, '.dynamic').content
  const names = findSection(elf, '.dynstr').content
  const needed: string[] = []
  for (let at = 0; at < dynamic.length; at += 16) {
    if (dynamic.readBigUInt64LE(at) !== DT_NEEDED) continue
    const nameAt = Number(dynamic.readBigUInt64LE(at + 8))
    needed.push(names.toString('latin1', nameAt, names.indexOf(0, nameAt)))
  }
  return needed
}
