/** The demo's scene: who asks what, with which real client, and how it has to end. */

import type { RunOptions } from '../kernel/lab.ts'

/** One request of the scene. */
export interface Row {
  readonly who: string
  readonly asks: string
  readonly command: readonly [program: string, ...args: string[]]
  readonly as: RunOptions
  /** Status that the client must get. */
  readonly status: number
  /** What must have arrived at the host: whose claims under a right signature, or nothing at all. */
  readonly hostSaw: 'root' | 'not root' | 'nothing'
}

const IMDS = 'http://169.254.169.254'
const WIRESERVER = 'http://168.63.129.16'
const HOSTGA = 'http://168.63.129.16:32526'
const INSTANCE = '/metadata/instance?api-version=2021-02-01'
const TOKEN = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F'
const GOAL_STATE = '/machine/?comp=goalstate'

const ROOT: RunOptions = {}
const USER: RunOptions = { uid: 1000, gid: 1000 }
const USER_OF_GROUP_ROOT: RunOptions = { uid: 1000, gid: 0 }

/** Every client prints the status code as the last three characters of its output. */
const curl = (...args: string[]): Row['command'] => [
  'curl',
  ...['--silent', '--max-time', '10', '--output', '/dev/null', '--write-out', '%{http_code}', '-H', 'Metadata: true'],
  ...args,
]

const PYTHON = `
import sys, urllib.request, urllib.error
try:
    request = urllib.request.Request(sys.argv[1], headers={'Metadata': 'true'})
    print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
`

const PYTHON_IPV6_SOCKET = `
import socket, sys
connection = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
connection.settimeout(10)
connection.connect(('::ffff:169.254.169.254', 80))
connection.sendall(b'GET ' + sys.argv[1].encode() + b' HTTP/1.1\\r\\nhost: 169.254.169.254\\r\\nmetadata: true\\r\\n\\r\\n')
print(connection.recv(64).split()[1].decode())
`

const NODE = `
require('node:http').get(process.argv[1], { headers: { metadata: 'true' } }, (answer) => {
  answer.resume().on('end', () => console.log(answer.statusCode))
})
`

/** The rules that the demo's host sends: only root may ask for tokens, all else is open. */
export const RULES = {
  wireserver: { defaultAccess: 'allow', mode: 'enforce', id: 'demo-wireserver' },
  imds: {
    defaultAccess: 'allow',
    mode: 'enforce',
    id: 'demo-imds',
    rules: {
      privileges: [{ name: 'tokens', path: '/metadata/identity' }],
      roles: [{ name: 'token readers', privileges: ['tokens'] }],
      identities: [{ name: 'root', userName: 'root' }],
      roleAssignments: [{ role: 'token readers', identities: ['root'] }],
    },
  },
} as const

/** @param nodePath a Node executable for the Node client. */
export function scene(nodePath: string): readonly Row[] {
  return [
    row('root, curl', 'WireServer goal state', curl(WIRESERVER + GOAL_STATE), ROOT, 200, 'root'),
    row('root, curl', 'HostGAPlugin health', curl(`${HOSTGA}/health`), ROOT, 200, 'root'),
    row('root, curl', 'IMDS instance', curl(IMDS + INSTANCE), ROOT, 200, 'root'),
    row('uid 1000, curl', 'IMDS instance', curl(IMDS + INSTANCE), USER, 200, 'not root'),
    row('uid 1000, curl', 'WireServer goal state', curl(WIRESERVER + GOAL_STATE), USER, 403, 'nothing'),
    row(
      'uid 1000 gid 0, curl',
      'WireServer goal state',
      curl(WIRESERVER + GOAL_STATE),
      USER_OF_GROUP_ROOT,
      403,
      'nothing',
    ),
    row('root, curl', 'IMDS token (root only)', curl(IMDS + TOKEN), ROOT, 200, 'root'),
    row('uid 1000, curl', 'IMDS token (root only)', curl(IMDS + TOKEN), USER, 403, 'nothing'),
    row(
      'uid 1000, python3 urllib',
      'IMDS instance',
      ['/usr/bin/python3', '-c', PYTHON, IMDS + INSTANCE],
      USER,
      200,
      'not root',
    ),
    row('root, Node http', 'IMDS instance', [nodePath, '-e', NODE, IMDS + INSTANCE], ROOT, 200, 'root'),
    row(
      'uid 1000, IPv6 socket',
      'IMDS at ::ffff:169...',
      ['/usr/bin/python3', '-c', PYTHON_IPV6_SOCKET, INSTANCE],
      USER,
      200,
      'not root',
    ),
    row('root, curl', 'the listener directly', curl(`http://127.0.0.1:3080${INSTANCE}`), ROOT, 421, 'nothing'),
    row(
      'uid 1000, forged headers',
      'IMDS instance',
      curl(
        ...[
          '-H',
          'x-ms-azure-host-authorization: Azure-HMAC-SHA256 me 00',
          '-H',
          'x-ms-azure-host-claims: { "isRoot": "true"}',
        ],
        IMDS + INSTANCE,
      ),
      USER,
      200,
      'not root',
    ),
    row('root, curl', 'a path with ..', curl('--path-as-is', `${IMDS}/metadata/x/../instance`), ROOT, 403, 'nothing'),
  ]
}

function row(
  who: string,
  asks: string,
  command: Row['command'],
  as: RunOptions,
  status: number,
  hostSaw: Row['hostSaw'],
): Row {
  return { who, asks, command, as, status, hostSaw }
}
