/** Callers for tests. */

import type { Caller } from '../../src/identity/caller.ts'

/** Makes a caller: alice with curl, unless `changes` say otherwise. */
export function makeCaller(changes: Partial<Caller> = {}): Caller {
  return {
    uid: 1000,
    gid: 1000,
    userName: 'alice',
    groups: [],
    pid: 1,
    exePath: '/usr/bin/curl',
    processName: 'curl',
    commandLine: 'curl x',
    elevated: false,
    cgroupPath: undefined,
    systemdUnit: undefined,
    containerId: undefined,
    exeSha256: undefined,
    foreignNamespaces: [],
    clientAddress: '127.0.0.1',
    clientPort: 1,
    doubt: undefined,
    ...changes,
  }
}
