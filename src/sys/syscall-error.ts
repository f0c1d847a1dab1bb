/** The failure of one system call: which call, which errno, and what an operator can do about it. */

import { AgentError, type Facts } from '../base/errors.ts'
import { errnoName } from './errno.ts'

/** What a `SyscallError` always says, and may say. */
export interface SyscallFailure {
  /** The call as the manual names it: `BPF_PROG_LOAD`, `getsockopt(SO_COOKIE)`. */
  readonly command: string
  /** Positive errno. */
  readonly errno: number
  /** The likely cause or the remedy, for people. */
  readonly hint?: string | undefined
}

/** A system call that the kernel refused. Callers act on `errno`; people read `facts.errno`, which is its name. */
export class SyscallError extends AgentError {
  override name = 'SyscallError'
  readonly errno: number

  constructor(code: string, message: string, failure: SyscallFailure, facts: Facts = {}, options?: ErrorOptions) {
    const { command, errno, hint } = failure
    super(
      code,
      message,
      { command, errno: errnoName(errno), ...(hint === undefined ? {} : { hint }), ...facts },
      options,
    )
    this.errno = errno
  }
}
