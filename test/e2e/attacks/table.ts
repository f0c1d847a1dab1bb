/**
 * Which test shows which weakness of an attribution by process id and port to be closed here, and which attack to fail.
 *
 * A row names the tests by the words of their source, so that a test that is renamed or removed is missed; or it says why
 * there is none.
 */

export interface Row {
  readonly what: string
  /** File below test, and words of the test's name. */
  readonly shownBy: readonly (readonly [file: string, test: string])[]
  /** What no test here can show, and why; or how far the answer goes. */
  readonly note?: string
}

const ATTACKS_TEST = 'e2e/attacks.test.ts'
const REDIRECT = 'kernel/redirect.test.ts'
const HANDSHAKE = 'kernel/handshake.test.ts'
const STOLEN = 'e2e/stolen-record.test.ts'
const FAIL_CLOSED = 'e2e/fail-closed.test.ts'
const CONTAINERS = 'e2e/containers.test.ts'
const STALE = 'e2e/stale-connections.test.ts'
const BORROWED = 'e2e/borrowed-executable.test.ts'

/** What an attribution by process id and port is open to, as far as we know. */
export const WEAKNESSES: readonly Row[] = [
  {
    what: 'group number taken for the user',
    shownBy: [
      [REDIRECT, 'takeRecord() takes uid and gid apart'],
      [ATTACKS_TEST, 'a user whose primary group is root'],
    ],
  },
  {
    what: 'pid recorded at connect, /proc read at accept',
    shownBy: [
      [ATTACKS_TEST, 'an allowed program that got the pid of the one that connected is not taken for it'],
      ['identity/identify.test.ts', 'identify() doubts what it must when'],
    ],
  },
  {
    what: 'exec after connect',
    shownBy: [
      [ATTACKS_TEST, 'a program that connects and becomes an allowed one is not taken for it'],
      ['e2e/local-selectors.test.ts', 'are not deceived by a file that is written over after the connect'],
      ['e2e/shared-inodes.test.ts', 'a program with the same number that becomes the named one is not taken for it'],
    ],
  },
  {
    what: 'one identity for each connection',
    shownBy: [[ATTACKS_TEST, 'a connection that a user passes to a process of root stays his']],
    note: 'what a program hands on by its own will stays its own: no test, the kernel does not tell who writes',
  },
  {
    what: 'paths of another mount namespace',
    shownBy: [
      [BORROWED, 'an impostor may not:'],
      [ATTACKS_TEST, 'a false /proc in a mount namespace of his own says nothing to the agent'],
    ],
  },
  {
    what: 'mark of a deleted executable',
    shownBy: [
      ['identity/executable.test.ts', 'nameExecutable() takes a removed file for removed only if it was so before'],
      ['identity/mounts.test.ts', 'nameExecutable() names'],
      [BORROWED, 'while it runs keeps its name'],
    ],
  },
  {
    what: 'records found by the port alone',
    shownBy: [
      [STOLEN, 'a request from the same port of another address of the machine is refused, and root is served'],
      [
        ATTACKS_TEST,
        'a listener on the same port in another network namespace catches nobody and lends nobody a record',
      ],
    ],
  },
  {
    what: 'stale records',
    shownBy: [
      [STOLEN, 'a request left in the queue by a client that timed out is refused, and root is served'],
      [STOLEN, 'is not heard, and root is served'],
      [ATTACKS_TEST, 'what root left in the queue is not for who connects to the listener from its port'],
      [REDIRECT, 'a direct connection clears the stale record under its own source'],
    ],
  },
  {
    what: 'what a failed connect left with its thread',
    shownBy: [
      [REDIRECT, 'what a failed connect left with its socket does not go to the next one'],
      [HANDSHAKE, 'what a connect left that was turned away does not go to the next one'],
    ],
  },
  {
    what: 'room for 200 records',
    shownBy: [
      [ATTACKS_TEST, '20 000 connects push nobody out of the kernel’s table'],
      ['e2e/flood.test.ts', 'does not take the places of others'],
      [REDIRECT, 'keeps 300 simultaneous connections apart'],
    ],
  },
  {
    what: 'needs kprobes and types of the kernel',
    shownBy: [
      [REDIRECT, 'redirects, attributes in full and skips itself with'],
      [REDIRECT, 'gives reduced records, says so, and skips itself'],
    ],
  },
  {
    what: 'IPv4 sockets alone',
    shownBy: [
      [ATTACKS_TEST, 'no spelling of the address, and no way to open a connection, goes past the agent'],
      [ATTACKS_TEST, 'io_uring connects as who it is for'],
      [REDIRECT, 'redirects and attributes'],
    ],
  },
  {
    what: 'loopback of other network namespaces',
    shownBy: [
      [CONTAINERS, 'the first connect is served, signed, and attributed to who made it'],
      [CONTAINERS, 'namespaces that use the same source port at the same time keep their callers apart'],
      [CONTAINERS, 'where the port is taken connects fail'],
      ['kernel/containers.test.ts', 'let no packet out to who sits on the port'],
      [REDIRECT, 'leaves alone a process in another network namespace, and counts it'],
    ],
  },
  {
    what: 'traffic that no connect here opened',
    shownBy: [[FAIL_CLOSED, 'straight to the host, which wants a signature']],
    note: 'no hook sees what is forwarded for virtual machines, or made of raw packets by who may (CAP_NET_RAW, in a container of its own network): it reaches the host unsigned, which refuses it while it enforces; README says how a firewall closes that way',
  },
  {
    what: 'the agent known by its pid',
    shownBy: [
      [REDIRECT, 'leaves alone the agent, whose pid is 1 to itself'],
      [REDIRECT, 'leaves alone the agent, and not its children'],
    ],
  },
  {
    what: 'the first cgroup2 mount that is found',
    shownBy: [
      ['ebpf/cgroup.test.ts', 'chooses in'],
      ['ebpf/cgroup.test.ts', 'refuses a container that sees only a part of the tree, and names it'],
    ],
  },
  {
    what: 'exclusive attachment that outlives the agent',
    shownBy: [
      ['kernel/load.test.ts', 'startRedirector() runs beside another one'],
      ['e2e/service.test.ts', 'killed: redirection ends with the process'],
      [FAIL_CLOSED, 'the next agent copes with'],
    ],
  },
  {
    what: 'failing open, silently',
    shownBy: [
      ['agent/redirection.test.ts', 'run() tries for ever, ever more seldom, and tells why'],
      ['agent/redirection.test.ts', 'run() attaches again when somebody removed the links, with the policy of now'],
      ['e2e/stale-connections.test.ts', 'is told and ended when closeStaleConnections is on'],
      [FAIL_CLOSED, 'killed: connections are refused until the next agent is there'],
    ],
  },
  {
    what: 'users remembered for ever',
    shownBy: [
      ['identity/users.test.ts', 'lookUp() remembers an answer for a minute'],
      ['identity/users.test.ts', 'lookUp() remembers an absence for five seconds'],
      ['identity/users.test.ts', 'lookUp() remembers a bounded number of users, the latest'],
    ],
  },
  {
    what: 'a directory that blocks everybody',
    shownBy: [
      ['identity/users.test.ts', 'lookUp() gives up a name service that does not answer, and asks again later'],
      ['identity/users.test.ts', 'lookUp() asks a name service that hangs for four users at a time'],
      ['e2e/name-service.test.ts', 'a name service that hangs makes nobody wait but those whom it alone knows'],
    ],
    note: 'groups stay those of the directory: rules were written for them',
  },
  {
    what: 'users of containers looked up on the host',
    shownBy: [
      [ATTACKS_TEST, 'root of a user namespace'],
      ['e2e/local-selectors.test.ts', 'for a container: the one that root made, not one that a user called so'],
      ['e2e/local-selectors.test.ts', 'what a user in namespaces of his own is shown by'],
    ],
  },
  {
    what: 'root by number alone',
    shownBy: [
      [ATTACKS_TEST, 'root of a user namespace'],
      ['identity/identify.test.ts', 'identify() takes '],
    ],
  },
  {
    what: 'command lines of the caller’s making',
    shownBy: [
      ['e2e/flood.test.ts', 'does not hide the denials of others behind his own'],
      ['identity/command-line.test.ts', 'renderCommandLine() renders'],
    ],
  },
  {
    what: 'prints in the kernel’s hot path',
    shownBy: [['ebpf/programs.test.ts', 'is what was reviewed']],
    note: 'the reviewed listings hold every call: none prints',
  },
  {
    what: 'redirection to a listener that is not there',
    shownBy: [
      ['agent/redirection.test.ts', 'the policy is what is not disabled, while the listener is there'],
      [FAIL_CLOSED, 'while it is away gets no connection'],
    ],
  },
]

/** What somebody may try, one by one. */
export const ATTACKS: readonly Row[] = [
  {
    what: 'a connect that does not wait, then exec of an allowed program',
    shownBy: [[ATTACKS_TEST, 'a program that connects and becomes an allowed one is not taken for it']],
  },
  {
    what: 'a connect in a child that exits, its pid used again',
    shownBy: [[ATTACKS_TEST, 'an allowed program that got the pid of the one that connected is not taken for it']],
    note: 'the pid is chosen, which a small pid_max would only make likely',
  },
  {
    what: 'a connection handed to another process',
    shownBy: [[ATTACKS_TEST, 'a connection that a user passes to a process of root stays his']],
  },
  {
    what: 'the source port of another, from 127.0.0.2',
    shownBy: [
      [STOLEN, 'a request from the same port of another address of the machine is refused, and root is served'],
    ],
  },
  {
    what: 'a record that was left behind',
    shownBy: [
      [STOLEN, 'a request left in the queue by a client that timed out is refused, and root is served'],
      [ATTACKS_TEST, 'what root left in the queue is not for who connects to the listener from its port'],
    ],
  },
  { what: 'user 1000 with group 0', shownBy: [[ATTACKS_TEST, 'a user whose primary group is root']] },
  {
    what: 'a mount namespace with a /usr/bin/curl of its own',
    shownBy: [[BORROWED, 'bound over the path in a namespace of its own']],
  },
  { what: 'root of a user namespace', shownBy: [[ATTACKS_TEST, 'root of a user namespace']] },
  {
    what: 'a mount over /proc',
    shownBy: [[ATTACKS_TEST, 'a false /proc in a mount namespace of his own says nothing to the agent']],
  },
  {
    what: 'IPv4-mapped and other forms of the address',
    shownBy: [[ATTACKS_TEST, 'no spelling of the address, and no way to open a connection, goes past the agent']],
  },
  {
    what: 'a listener of his own on the same port in another network namespace',
    shownBy: [
      [
        ATTACKS_TEST,
        'a listener on the same port in another network namespace catches nobody and lends nobody a record',
      ],
      ['kernel/containers.test.ts', 'let no handshake end with who opens from the port at the same time'],
    ],
  },
  {
    what: '20 000 connects to flush the table',
    shownBy: [[ATTACKS_TEST, '20 000 connects push nobody out of the kernel’s table']],
  },
  {
    what: 'MPTCP and TCP Fast Open',
    shownBy: [
      [ATTACKS_TEST, 'no spelling of the address, and no way to open a connection, goes past the agent'],
      ['kernel/containers.test.ts', 'have their first connect held with'],
    ],
  },
  { what: 'a connect by io_uring', shownBy: [[ATTACKS_TEST, 'io_uring connects as who it is for']] },
  {
    what: 'a connection from before the agent',
    shownBy: [
      [STALE, "what: 'is told'"],
      [STALE, 'is told and ended when closeStaleConnections is on'],
    ],
  },
]
