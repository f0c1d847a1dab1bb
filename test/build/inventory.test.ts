import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { build, MANIFEST, makeFolder, NODE_VERSION, PROGRAM, PROGRAM_PACKAGES, ROOT } from './built.ts'

interface Component {
  readonly 'bom-ref': string
  readonly name: string
  readonly version: string
  readonly purl: string
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[]
  readonly licenses?: readonly unknown[]
  readonly components?: readonly Component[]
}

interface Bom {
  readonly bomFormat: string
  readonly specVersion: string
  readonly serialNumber: string
  readonly metadata: { readonly component: Component; readonly timestamp?: string }
  readonly components: readonly Component[]
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[]
}

const made = makeFolder()
let executable: Buffer
let licenses: string
let bom: Bom

before(async () => {
  const built = await build({ entry: PROGRAM, out: path.join(made.folder, 'program') })
  executable = readFileSync(built.out)
  licenses = readFileSync(built.licenses, 'utf8')
  bom = JSON.parse(readFileSync(built.sbom, 'utf8'))
})
after(() => made[Symbol.dispose]())

test('the bill of materials lists the runtime and exactly the bundled packages, at the installed versions', () => {
  assert.deepEqual([bom.bomFormat, bom.specVersion], ['CycloneDX', '1.6'])
  assert.deepEqual(
    bom.components.map(({ purl }) => purl),
    [
      `pkg:npm/node-linux-${process.arch}@${NODE_VERSION}`,
      ...PROGRAM_PACKAGES.map((name) => `pkg:npm/${name}@${installedVersion(name)}`),
    ],
  )
})

test('the bill of materials carries, for each component, the hash that package-lock.json holds it to', () => {
  const lock = JSON.parse(readFileSync(path.join(ROOT, 'package-lock.json'), 'utf8'))
  for (const { purl, hashes } of bom.components) {
    const name = /^pkg:npm\/(.*)@/.exec(purl)?.[1]
    const hex = Buffer.from(lock.packages[`node_modules/${name}`].integrity.replace('sha512-', ''), 'base64')
    assert.deepEqual(hashes, [{ alg: 'SHA-512', content: hex.toString('hex') }], purl)
  }
})

test('the bill of materials names the libraries linked into the runtime', () => {
  const parts = new Map(bom.components[0]?.components?.map(({ name, version }) => [name, version]))
  for (const name of ['openssl', 'v8', 'uv', 'zlib', 'libffi', 'llhttp', 'undici'] as const) {
    assert.equal(parts.get(name), process.versions[name], name)
  }
})

test('the bill of materials belongs to the executable beside it, and to no moment in time', () => {
  const { component, timestamp } = bom.metadata
  const hash = createHash('sha256').update(executable).digest('hex')
  assert.deepEqual(component.hashes, [{ alg: 'SHA-256', content: hash }])
  assert.equal(component.version, MANIFEST.version)
  assert.equal(timestamp, undefined)
  assert.match(bom.serialNumber, /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
})

test('the bill of materials refers only to components it contains, each once', () => {
  const all = [
    bom.metadata.component,
    ...bom.components,
    ...bom.components.flatMap(({ components = [] }) => components),
  ]
  const refs = all.map((component) => component['bom-ref'])
  assert.equal(new Set(refs).size, refs.length)
  for (const { ref, dependsOn } of bom.dependencies) {
    for (const name of [ref, ...dependsOn]) assert.ok(refs.includes(name), name)
  }
})

test('the licence file holds the texts of the agent, of Node, and of exactly the bundled packages', () => {
  const titles = licenses.split('\n').filter((line, at, lines) => /^={80}$/.test(lines[at - 1] ?? '') && line !== '')
  assert.deepEqual(titles, [
    `azure-proxy-agent ${MANIFEST.version} (MIT)`,
    `Node.js ${NODE_VERSION}`,
    ...PROGRAM_PACKAGES.map((name) => `${name} ${installedVersion(name)} (MIT)`),
  ])
  const folders = [
    '',
    `node_modules/node-linux-${process.arch}`,
    ...PROGRAM_PACKAGES.map((name) => `node_modules/${name}`),
  ]
  for (const folder of folders) {
    const name = folder.endsWith('valibot') ? 'LICENSE.md' : 'LICENSE'
    const text = readFileSync(path.join(ROOT, folder, name), 'utf8').trim()
    assert.ok(licenses.includes(text), path.join(folder, name))
  }
})

function installedVersion(name: string): string {
  return JSON.parse(readFileSync(path.join(ROOT, 'node_modules', name, 'package.json'), 'utf8')).version
}
