import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { AgentError } from '../../src/base/errors.ts'
import { createKeyStore, preparePrivateDirectory } from '../../src/channel/key-store.ts'
import { type LatchedKey, SecretKey } from '../../src/channel/secret-key.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const HEX = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
const GUID = '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf'
const OTHER_GUID = '00000000-0316-4ad3-94a7-8ccbdee8ccbf'
const KEY: LatchedKey = { guid: GUID, incarnationId: 1, issued: '2021-05-05T 12:00:00Z', key: new SecretKey(HEX) }

const FILE = `{
  "authorizationScheme": "Azure-HMAC-SHA256",
  "incarnationId": 1,
  "guid": "${GUID}",
  "issued": "2021-05-05T 12:00:00Z",
  "key": "${HEX}"
}`

function setUp(t: TestContext) {
  const folder = temporaryFolder(t)
  const directory = join(folder, 'keys')
  mkdirSync(directory, { mode: 0o700 })
  return { folder, directory, path: join(directory, `${GUID}.key`), store: createKeyStore(directory) }
}

/** Runs `act` with a umask that takes nothing away, so that modes are those we asked for. */
async function withUmask0<T>(act: () => Promise<T>): Promise<T> {
  const old = process.umask(0)
  try {
    return await act()
  } finally {
    process.umask(old)
  }
}

const modeOf = (path: string) => statSync(path).mode & 0o7777

/** Asserts a failure with `code` and `message` that holds no digit of the key. */
async function assertRefused(promise: Promise<unknown>, code: string, message: string | RegExp): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof AgentError)
    assert.equal(error.code, code)
    if (typeof message === 'string') assert.equal(error.message, message)
    else assert.match(error.message, message)
    assert.doesNotMatch(inspect(error, { depth: null, showHidden: true }), /4A404E63|67566B59/i)
    return true
  })
}

describe('write()', () => {
  test('writes the file that other agents write, private whatever the umask', async (t) => {
    const { directory, path, store } = setUp(t)
    await withUmask0(() => store.write(KEY))
    assert.equal(readFileSync(path, 'utf8'), FILE)
    assert.equal(modeOf(path), 0o600)
    assert.deepEqual(readdirSync(directory), [`${GUID}.key`])
  })

  test('leaves out an incarnation that is not known', async (t) => {
    const { path, store } = setUp(t)
    await store.write({ ...KEY, incarnationId: undefined })
    assert.equal(readFileSync(path, 'utf8'), FILE.replace('  "incarnationId": 1,\n', ''))
  })

  test('creates the temporary file privately and anew, never through what lies there', async (t) => {
    const { folder, directory, path, store } = setUp(t)
    const victim = join(folder, 'victim')
    writeFileSync(victim, 'precious')
    symlinkSync(victim, join(directory, `${GUID}.tmp`))
    await store.write(KEY)
    assert.equal(readFileSync(victim, 'utf8'), 'precious')
    assert.equal(readFileSync(path, 'utf8'), FILE)
    assert.deepEqual(readdirSync(directory), [`${GUID}.key`])
  })

  test('is never open to others, not even while it is being written', async (t) => {
    const { directory, store } = setUp(t)
    const modes = new Set<number>()
    for (let writes = 0; writes < 5 || modes.size === 0; writes++) {
      await withUmask0(() => watchWhile(join(directory, `${GUID}.tmp`), modes, store.write(KEY)))
    }
    assert.deepEqual([...modes], [0o600])
  })

  test('replaces a link in the place of the key, not what it points to', async (t) => {
    const { folder, path, store } = setUp(t)
    const victim = join(folder, 'victim')
    writeFileSync(victim, 'precious')
    symlinkSync(victim, path)
    await store.write(KEY)
    assert.equal(readFileSync(victim, 'utf8'), 'precious')
    assert.ok(lstatSync(path).isFile())
  })

  test('fails with the known words and leaves nothing when the directory takes no file', {
    skip: rootSkip(),
  }, async (t) => {
    const { folder, directory, path, store } = setUp(t)
    chmodSync(folder, 0o755)
    chmodSync(directory, 0o555)
    await withoutPrivilege(() =>
      assertRefused(
        store.write(KEY),
        'KEY_STORE_FAILED',
        `Key(StoreLocalKey("json_write_to_file '${path}' failed EACCES"))`,
      ),
    )
    assert.deepEqual(readdirSync(directory), [])
  })

  test('never writes over another key of the same id, whoever gave it', async (t) => {
    const { path, store } = setUp(t)
    await store.write(KEY)
    await store.write(KEY)
    const before = readFileSync(path, 'utf8')
    const other = { ...KEY, key: new SecretKey('cd'.repeat(32)) }
    await assertRefused(store.write(other), 'KEY_STORE_FAILED', /holds another key under this id; remove it if/)
    assert.equal(readFileSync(path, 'utf8'), before)
  })

  test('keeps the held key, the new one and sixteen more, the oldest going first', async (t) => {
    const { directory, store } = setUp(t)
    const guid = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`
    for (let number = 0; number < 30; number++) {
      await store.write({ ...KEY, guid: guid(number) }, guid(0))
      utimesSync(join(directory, `${guid(number)}.key`), 1000 + number, 1000 + number)
    }
    const expected = [0, ...Array.from({ length: 17 }, (_, i) => 13 + i)].map((number) => `${guid(number)}.key`)
    assert.deepEqual(readdirSync(directory).sort(), expected.sort())
  })

  test('makes the directory anew when it was removed', async (t) => {
    const { folder } = setUp(t)
    const store = createKeyStore(join(folder, 'missing'))
    await store.write(KEY)
    assert.equal(modeOf(join(folder, 'missing')), 0o700)
    await store.check(KEY)
  })

  test('fails when there cannot be a directory', async (t) => {
    const { folder } = setUp(t)
    writeFileSync(join(folder, 'file'), '')
    const store = createKeyStore(join(folder, 'file', 'keys'))
    await assertRefused(store.write(KEY), 'KEY_STORE_FAILED', /failed ENOTDIR"\)\)$/)
  })

  test('refuses a directory that is a link, to write and to read', async (t) => {
    const { folder, directory } = setUp(t)
    await createKeyStore(directory).write(KEY)
    symlinkSync(directory, join(folder, 'link'))
    const store = createKeyStore(join(folder, 'link'))
    await assertRefused(store.write(KEY), 'KEY_STORE_FAILED', /is a link; links are not followed"\)\)$/)
    await assertRefused(store.read(GUID), 'KEY_FILE_UNUSABLE', /is a link; links are not followed"\)\)$/)
  })

  test('leaves no temporary file when the last step fails', async (t) => {
    const { directory, path, store } = setUp(t)
    mkdirSync(path)
    await assertRefused(store.write(KEY), 'KEY_STORE_FAILED', /failed EISDIR"\)\)$/)
    assert.deepEqual(readdirSync(directory), [`${GUID}.key`])
  })

  test('keeps the old key whole when the new one cannot be written', async (t) => {
    const { directory, path, store } = setUp(t)
    await store.write(KEY)
    mkdirSync(join(directory, `${GUID}.tmp`))
    const change = store.write({ ...KEY, issued: 'later' })
    await assertRefused(change, 'KEY_STORE_FAILED', /failed E[A-Z]+"\)\)$/)
    assert.equal(readFileSync(path, 'utf8'), FILE)
  })
})

describe('read()', () => {
  test('gives back what was written', async (t) => {
    const { store } = setUp(t)
    await store.write(KEY)
    const key = await store.read(GUID)
    assert.deepEqual({ ...key, key: key.key.revealHex() }, { ...KEY, key: HEX })
  })

  test('reads a file without the optional member, in any layout', async (t) => {
    const { path, store } = setUp(t)
    writeFileSync(path, JSON.stringify({ ...JSON.parse(FILE), incarnationId: null, unknown: 1 }), { mode: 0o600 })
    assert.equal((await store.read(GUID)).incarnationId, undefined)
  })

  test('tightens a file that others could read, since it is the only key the host accepts', async (t) => {
    const { path, store } = setUp(t)
    writeFileSync(path, FILE)
    chmodSync(path, 0o644)
    assert.equal((await store.read(GUID)).guid, GUID)
    assert.equal(modeOf(path), 0o600)
  })

  const rows: readonly (readonly [situation: string, write: (path: string) => void, message: RegExp])[] = [
    ['no file', () => undefined, /^Key\(FetchLocalKey\("Key file '.*\.key' does not exist locally\."\)\)$/],
    ['an empty file', (path) => writeFileSync(path, ''), /Parse key data with error: /],
    ['half a file', (path) => writeFileSync(path, FILE.slice(0, -20)), /Parse key data with error: /],
    ['a byte-order mark', (path) => writeFileSync(path, `\ufeff${FILE}`), /Parse key data with error: /],
    ['a repeated member', (path) => writeFileSync(path, FILE.replace('{', '{"key":"x",')), /member key is repeated/],
    ['63 digits', (path) => writeFileSync(path, FILE.replace(HEX, HEX.slice(1))), /not 64 hexadecimal digits/],
    ['another scheme', (path) => writeFileSync(path, FILE.replace('HMAC-SHA256', 'X')), /its scheme is not/],
    ['the key of another id', (path) => writeFileSync(path, FILE.replace(GUID, OTHER_GUID)), /holds another key/],
    ['a file of 16 KiB and a byte', (path) => writeFileSync(path, FILE.padEnd(16 * 1024 + 1)), /is too large/],
    ['a directory', (path) => mkdirSync(path), /is not a regular file/],
    ['a named pipe, without waiting for a writer', (path) => execFileSync('mkfifo', [path]), /is not a regular file/],
    ['a link that leads nowhere', (path) => symlinkSync('/nonexistent', path), /is a link; links are not followed/],
  ]
  for (const [situation, write, message] of rows) {
    test(`refuses ${situation}`, async (t) => {
      const { path, store } = setUp(t)
      write(path)
      await assertRefused(store.read(GUID), 'KEY_FILE_UNUSABLE', message)
    })
  }

  test('takes a file of exactly 16 KiB', async (t) => {
    const { path, store } = setUp(t)
    writeFileSync(path, FILE.padEnd(16 * 1024))
    assert.equal((await store.read(GUID)).guid, GUID)
  })

  test('refuses a link to a good key file', async (t) => {
    const { folder, path, store } = setUp(t)
    writeFileSync(join(folder, 'real'), FILE)
    symlinkSync(join(folder, 'real'), path)
    await assertRefused(store.read(GUID), 'KEY_FILE_UNUSABLE', /is a link; links are not followed/)
  })

  test('refuses the file of another user', { skip: rootSkip() }, async (t) => {
    const { path, store } = setUp(t)
    writeFileSync(path, FILE)
    chownSync(path, 65534, 65534)
    await assertRefused(store.read(GUID), 'KEY_FILE_UNUSABLE', /belongs to uid 65534/)
  })

  test('refuses an id that would leave the directory', async (t) => {
    const { folder, store } = setUp(t)
    writeFileSync(join(folder, 'x.key'), FILE)
    await assertRefused(store.read('../x'), 'KEY_FILE_UNUSABLE', /the id is not a guid/)
  })
})

describe('check()', () => {
  test('accepts what was written', async (t) => {
    const { store } = setUp(t)
    await store.write(KEY)
    await store.check(KEY)
  })

  test('refuses another value under the same id', async (t) => {
    const { store } = setUp(t)
    await store.write({ ...KEY, key: new SecretKey('00'.repeat(32)) })
    await assertRefused(
      store.check(KEY),
      'KEY_CHECK_FAILED',
      'Key(CheckLocalKey("Local key guid or key value is not matched."))',
    )
  })

  test('refuses a file that is gone', async (t) => {
    const { store } = setUp(t)
    await assertRefused(store.check(KEY), 'KEY_FILE_UNUSABLE', /does not exist locally/)
  })
})

describe('removeOthers()', () => {
  test('removes superseded keys and leftovers, and leaves strangers alone', async (t) => {
    const { directory, store } = setUp(t)
    const kept = [`${GUID}.key`, 'notes.key', 'provisioned.tag', 'status.tag', `${OTHER_GUID}.encrypted`, OTHER_GUID]
    const strangers = [`${OTHER_GUID}.key.bak`, `x${OTHER_GUID}.key`, `.${OTHER_GUID}.key`]
    for (const name of [...kept, ...strangers, `${OTHER_GUID}.key`, `${OTHER_GUID}.tmp`]) {
      writeFileSync(join(directory, name), '')
    }
    assert.equal(await store.removeOthers(GUID), 2)
    assert.deepEqual(readdirSync(directory).sort(), [...kept, ...strangers].sort())
  })

  test('removes a link, not what it points to', async (t) => {
    const { folder, directory, store } = setUp(t)
    writeFileSync(join(folder, 'victim'), '')
    symlinkSync(join(folder, 'victim'), join(directory, `${OTHER_GUID}.key`))
    assert.equal(await store.removeOthers(GUID), 1)
    assert.ok(existsSync(join(folder, 'victim')))
  })

  test('does nothing where there is no directory or what looks like a key is one', async (t) => {
    const { folder, directory, store } = setUp(t)
    mkdirSync(join(directory, `${OTHER_GUID}.key`))
    assert.equal(await store.removeOthers(GUID), 0)
    assert.equal(await createKeyStore(join(folder, 'missing')).removeOthers(GUID), 0)
  })
})

describe('preparePrivateDirectory()', () => {
  test('makes the directory with mode 0700, whatever the umask', async (t) => {
    const directory = join(temporaryFolder(t), 'a', 'keys')
    assert.deepEqual(await withUmask0(() => preparePrivateDirectory(directory)), [])
    assert.equal(modeOf(directory), 0o700)
  })

  test('tightens one that others could enter and leaves its files', async (t) => {
    const { directory, path } = setUp(t)
    chmodSync(directory, 0o755)
    writeFileSync(path, FILE)
    assert.deepEqual(await preparePrivateDirectory(directory), [])
    assert.equal(modeOf(directory), 0o700)
    assert.equal(readFileSync(path, 'utf8'), FILE)
  })

  test('takes over one that belongs to another user', { skip: rootSkip() }, async (t) => {
    const { directory } = setUp(t)
    chownSync(directory, 65534, 65534)
    assert.deepEqual(await preparePrivateDirectory(directory), [])
    assert.deepEqual([statSync(directory).uid, statSync(directory).gid], [process.getuid?.(), process.getgid?.()])
  })

  test('complains of a link and does not touch what it points to', async (t) => {
    const { folder } = setUp(t)
    const target = join(folder, 'target')
    mkdirSync(target)
    chmodSync(target, 0o755)
    symlinkSync(target, join(folder, 'link'))
    const complaints = await preparePrivateDirectory(join(folder, 'link'))
    assert.deepEqual(complaints, [`'${join(folder, 'link')}' is not a directory (a link is not followed): remove it`])
    assert.equal(modeOf(target), 0o755)
  })

  test('complains of a file in its place, and of a parent that is one', async (t) => {
    const { folder } = setUp(t)
    const file = join(folder, 'file')
    writeFileSync(file, '')
    for (const path of [file, join(file, 'keys')]) {
      const [complaint = '', ...more] = await preparePrivateDirectory(path)
      assert.match(complaint, /^Cannot keep directory '.*' private: /)
      assert.deepEqual(more, [])
    }
  })
})

function rootSkip(): string | false {
  return process.getuid?.() === 0 ? false : 'needs root, to have a file of another user'
}

/** Runs `act` as another user than root, whom modes hold back. */
async function withoutPrivilege(act: () => Promise<void>): Promise<void> {
  process.seteuid?.(65534)
  try {
    await act()
  } finally {
    process.seteuid?.(0)
  }
}

/** Adds every mode that the file at `path` shows until `work` is done. */
async function watchWhile(path: string, modes: Set<number>, work: Promise<void>): Promise<void> {
  let isDone = false
  const done = work.finally(() => {
    isDone = true
  })
  while (!isDone) {
    const stat = lstatSync(path, { throwIfNoEntry: false })
    if (stat !== undefined) modes.add(stat.mode & 0o7777)
    await turn()
  }
  await done
}
