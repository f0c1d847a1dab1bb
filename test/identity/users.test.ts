import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  createUserDirectory,
  findUser,
  parseGroups,
  type UserDirectoryEnv,
  userDirectoryEnv,
} from '../../src/identity/users.ts'

const PASSWD = `root:x:0:0:root:/root:/bin/bash
alice:x:1000:1000:Alice,,,:/home/alice:/bin/bash
alias:x:1000:1000::/:/bin/sh
# a comment
broken line
carol:x:1002:5001::/:/bin/sh
dave:x:01003:1000::/:/bin/sh
nogid:x:1004:x::/:/bin/sh
`
const GROUP = `root:x:0:
adm:x:4:syslog,alice
sudo:x:27:alice
audio:x:29:alicex,ali
twin:x:27:alice
docker:x:999:alice,alice
alice:x:1000:
broken
:x:77:alice
`

const REMOTE: Readonly<Record<string, string>> = {
  'passwd 2000': 'ldapuser:*:2000:6001:LDAP User:/home/ldapuser:/bin/bash\n',
  'initgroups ldapuser': 'ldapuser             6003 6001 6002 4\n',
  'group 6001 6002 6003': 'staff:*:6001:\ndevs:*:6003:ldapuser\n',
  'group 5001': 'carols:*:5001:\n',
}

function directory(set: Partial<UserDirectoryEnv> = {}) {
  const time = { ms: 1000 }
  const reads: string[] = []
  const asked: string[] = []
  const env: UserDirectoryEnv = {
    async readFile(path) {
      reads.push(path)
      return path === '/etc/passwd' ? PASSWD : GROUP
    },
    async getent(args) {
      asked.push(args.join(' '))
      return REMOTE[args.join(' ')] ?? ''
    },
    monotonicMs: () => time.ms,
    ...set,
  }
  return { time, reads, asked, users: createUserDirectory(env) }
}

const UNKNOWN = { userName: 'undefined', groups: [] }

test('lookUp() finds local users with their groups in the order of their numbers, without the name service', async () => {
  const { users, asked } = directory()
  // Group 27 has two names: the first one counts, once.
  assert.deepEqual(await users.lookUp(1000), { userName: 'alice', groups: ['adm', 'sudo', 'docker', 'alice'] })
  assert.deepEqual(await users.lookUp(0), { userName: 'root', groups: ['root'] })
  assert.deepEqual(asked, [])
})

test('lookUp() asks the name service for a group that is not in the file', async () => {
  const { users, asked } = directory()
  assert.deepEqual(await users.lookUp(1002), { userName: 'carol', groups: ['carols'] })
  assert.deepEqual(asked, ['group 5001'])
})

test('lookUp() asks the name service for a user that is not in the file', async () => {
  const { users, asked } = directory()
  // 6002 has no name anywhere and is left out.
  assert.deepEqual(await users.lookUp(2000), { userName: 'ldapuser', groups: ['adm', 'staff', 'devs'] })
  assert.deepEqual(asked, ['passwd 2000', 'initgroups ldapuser', 'group 6001 6002 6003'])
})

for (const uid of [1003, 1004, 3000, 4294967295]) {
  test(`lookUp() knows nobody with uid ${uid}`, async () => {
    assert.deepEqual(await directory().users.lookUp(uid), UNKNOWN)
  })
}

test('lookUp() does not trust an answer about another uid', async () => {
  const { users } = directory({ getent: async () => 'root:x:0:0::/:/bin/sh\n' })
  assert.deepEqual(await users.lookUp(3000), UNKNOWN)
})

test('lookUp() drops the list of a user with more than 1024 groups', async () => {
  const many = (count: number) => Array.from({ length: count }, (_, i) => `g${i}:x:${i + 10}:alice`).join('\n')
  const ask = (count: number) =>
    directory({ readFile: async (path) => (path === '/etc/passwd' ? PASSWD : many(count)) }).users.lookUp(1000)
  // Group 1000 of the user himself is among the numbers.
  assert.equal((await ask(1024)).groups.length, 1024)
  assert.deepEqual((await ask(1025)).groups, [])
})

test('lookUp() goes on without the files', async () => {
  const { users } = directory({
    readFile: async () => {
      throw new Error('EACCES')
    },
  })
  assert.equal((await users.lookUp(2000)).userName, 'ldapuser')
})

test('lookUp() remembers an answer for a minute', async () => {
  const { users, time, reads } = directory()
  await users.lookUp(1000)
  time.ms += 59_999
  await users.lookUp(1000)
  assert.equal(reads.length, 2)
  time.ms += 1
  await users.lookUp(1000)
  assert.equal(reads.length, 4)
})

test('lookUp() remembers an absence for five seconds', async () => {
  const { users, time, asked } = directory()
  await users.lookUp(3000)
  time.ms += 4999
  await users.lookUp(3000)
  assert.equal(asked.length, 1)
  time.ms += 1
  await users.lookUp(3000)
  assert.equal(asked.length, 2)
})

test('lookUp() remembers an answer with gaps for five seconds only', async () => {
  let isDown = true
  const { users, time } = directory({ getent: async (args) => (isDown ? undefined : REMOTE[args.join(' ')]) })
  assert.deepEqual(await users.lookUp(1002), { userName: 'carol', groups: [] })
  isDown = false
  time.ms += 5000
  assert.deepEqual(await users.lookUp(1002), { userName: 'carol', groups: ['carols'] })
})

test('lookUp() asks once for all who ask at the same time', async () => {
  const { promise, resolve } = Promise.withResolvers<string>()
  let count = 0
  const { users, time } = directory({
    getent: (args) => {
      count++
      return args[0] === 'passwd' ? promise : Promise.resolve('')
    },
  })
  const answers = [users.lookUp(2000), users.lookUp(2000)]
  time.ms += 61_000
  answers.push(users.lookUp(2000))
  resolve(REMOTE['passwd 2000'] as string)
  for (const answer of answers) assert.equal((await answer).userName, 'ldapuser')
  // passwd, initgroups, group
  assert.equal(count, 3)
})

/** A name service that answers when it is told to. */
function hangingService() {
  const waiting: { args: string; answer(text: string | undefined): void }[] = []
  const getent = (args: readonly string[]) =>
    new Promise<string | undefined>((resolve) => waiting.push({ args: args.join(' '), answer: resolve }))
  return { waiting, getent }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

test('lookUp() gives up a name service that does not answer, and asks again later', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { waiting, getent } = hangingService()
  const { users, time } = directory({ getent })
  const unknown = users.lookUp(3000)
  const local = users.lookUp(1002)
  await turn()
  t.mock.timers.tick(4500)
  assert.deepEqual(await unknown, UNKNOWN)
  assert.deepEqual(await local, { userName: 'carol', groups: [] })
  assert.equal(waiting.length, 2)
  for (const { answer } of waiting) answer(undefined)
  time.ms += 5000
  void users.lookUp(3000)
  await turn()
  assert.equal(waiting.length, 3)
})

test('lookUp() asks a name service that hangs for four users at a time, and makes no local user wait', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { waiting, getent } = hangingService()
  const { users } = directory({ getent })
  const remote = Array.from({ length: 10 }, (_, i) => users.lookUp(3000 + i))
  await turn()
  assert.deepEqual(
    waiting.map(({ args }) => args),
    [3000, 3001, 3002, 3003].map((uid) => `passwd ${uid}`),
  )
  assert.deepEqual((await users.lookUp(1000)).userName, 'alice')
  // One that ends makes room for the next in line; it is not too late for him.
  const answer = async (args: string, text: string) => {
    for (let turns = 0; turns < 100 && !waiting.some((each) => each.args === args); turns++) await turn()
    waiting.find((each) => each.args === args)?.answer(text)
  }
  await answer('passwd 3002', '')
  await answer('passwd 3004', 'late:x:3004:1000::/:/bin/sh\n')
  for (const uid of [3005, 3006, 3007, 3008, 3009]) await answer(`passwd ${uid}`, '')
  await answer('initgroups late', '')
  assert.equal((await remote[4])?.userName, 'late')
  t.mock.timers.tick(4500)
  assert.deepEqual(await remote[0], UNKNOWN)
  assert.deepEqual(await remote[3], UNKNOWN)
})

test('lookUp() has no more than 64 users wait for a name service that hangs', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { waiting, getent } = hangingService()
  const { users } = directory({ getent })
  for (let i = 0; i < 68; i++) void users.lookUp(3000 + i)
  await turn()
  assert.equal(waiting.length, 4)
  assert.deepEqual(await users.lookUp(4000), UNKNOWN)
})

test('lookUp() survives a name service that fails', async () => {
  const { users } = directory({
    getent: async () => {
      throw new Error('spawn EAGAIN')
    },
  })
  assert.deepEqual(await users.lookUp(3000), UNKNOWN)
})

test('lookUp() remembers a bounded number of users, the latest', async () => {
  const { users, asked } = directory()
  for (let uid = 10_000; uid < 10_000 + 1025; uid++) await users.lookUp(uid)
  const before = asked.length
  await users.lookUp(10_000 + 1024)
  assert.equal(asked.length, before, 'the latest is remembered')
  await users.lookUp(10_000)
  assert.equal(asked.length, before + 1, 'the oldest is not')
})

test('findUser() takes the first of two users with one number', () => {
  assert.deepEqual(findUser(PASSWD, 1000), { name: 'alice', gid: 1000 })
})

test('parseGroups() passes over lines of another form', () => {
  assert.deepEqual(parseGroups('a:x:1:\nb:x:-1:\nc:x::\nd:x:1\n\ne:x:2:u,,v\n'), [
    { name: 'a', gid: 1, members: [] },
    { name: 'e', gid: 2, members: ['u', 'v'] },
  ])
})

test('userDirectoryEnv() reads the users of this machine', async () => {
  const users = createUserDirectory(userDirectoryEnv(() => performance.now()))
  assert.equal((await users.lookUp(0)).userName, 'root')
  assert.ok((await users.lookUp(0)).groups.includes('root'))
  assert.deepEqual(await users.lookUp(3_999_999_999), UNKNOWN)
})

test('userDirectoryEnv() keeps what getent found although it did not find all', async () => {
  const { getent } = userDirectoryEnv(() => 0)
  assert.match((await getent(['group', '0', '3999999999'])) ?? '', /^root:[^:]*:0:/)
  assert.equal(await getent(['group', '3999999999']), '')
  assert.equal(await getent(['no-such-database', 'x']), undefined)
})
