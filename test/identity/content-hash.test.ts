import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { fstatSync, openSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { createContentHashes } from '../../src/identity/content-hash.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

/** Long after any file of a test was made. */
const LATER = Date.now() + 3_600_000

const sha256 = (content: Buffer | string) => createHash('sha256').update(content).digest('hex')

test('hash() gives the hash of the file behind a descriptor, and closes it', async (t) => {
  const path = join(temporaryFolder(t), 'program')
  const content = Buffer.alloc(1_000_000, 'abc')
  writeFileSync(path, content)
  const fd = openSync(path, 'r')
  assert.equal(await createContentHashes().hash(fd, 1000, LATER), sha256(content))
  assert.throws(() => fstatSync(fd), /EBADF/)
})

test('hash() of an empty file', async (t) => {
  const path = join(temporaryFolder(t), 'program')
  writeFileSync(path, '')
  assert.equal(await createContentHashes().hash(openSync(path, 'r'), 1000, LATER), sha256(''))
})

test('hash() reads a file again when it was written to, and not otherwise', async (t) => {
  const path = join(temporaryFolder(t), 'program')
  const hashes = createContentHashes()
  const ask = () => hashes.hash(openSync(path, 'r'), 1000, LATER)
  writeFileSync(path, 'one')
  const [first, second] = await Promise.all([ask(), ask()])
  assert.deepEqual([first, second, await ask()], [sha256('one'), sha256('one'), sha256('one')])
  writeFileSync(path, 'two')
  assert.equal(await ask(), sha256('two'))
})

test('hash() knows nothing of a file that changed after the connect, or right before it', async (t) => {
  const path = join(temporaryFolder(t), 'program')
  writeFileSync(path, 'one')
  const changedAtMs = Number(fstatSync(openSync(path, 'r')).ctimeMs)
  const hashes = createContentHashes()
  // Also when it has been hashed for somebody else.
  assert.equal(await hashes.hash(openSync(path, 'r'), 1000, LATER), sha256('one'))
  for (const connectedAtMs of [changedAtMs - 1000, changedAtMs, changedAtMs + 50]) {
    assert.equal(await hashes.hash(openSync(path, 'r'), 1000, connectedAtMs), undefined)
  }
  assert.equal(await hashes.hash(openSync(path, 'r'), 1000, changedAtMs + 200), sha256('one'))
})

test('hash() does not read what is larger than half a gigabyte', async (t) => {
  const path = join(temporaryFolder(t), 'program')
  writeFileSync(path, '')
  truncateSync(path, 512 * 1024 * 1024 + 1)
  const startMs = performance.now()
  assert.equal(await createContentHashes().hash(openSync(path, 'r'), 1000, LATER), undefined)
  t.diagnostic(`took ${(performance.now() - startMs).toFixed(1)} ms`)
})

test('hash() gives up what cannot be read', async () => {
  assert.equal(await createContentHashes().hash(openSync('/', 'r'), 1000, LATER), undefined)
})

test('hash() has a bounded number of files of a user at hand', async (t) => {
  const folder = temporaryFolder(t)
  const hashes = createContentHashes()
  const answers = await Promise.all(
    Array.from({ length: 80 }, (_, i) => {
      const path = join(folder, String(i))
      writeFileSync(path, String(i))
      return hashes.hash(openSync(path, 'r'), 1000, LATER)
    }),
  )
  assert.equal(answers.filter((hash) => hash !== undefined).length, 65)
})
