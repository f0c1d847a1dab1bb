/** The stages a request passes through that are not the proxy's own: they arrive as arguments. */

import type { Endpoint, InetAddress } from '../base/endpoints.ts'
import type { SignableRequest } from '../channel/sign.ts'
import type { Caller } from '../identity/caller.ts'
import type { Verdict } from '../rules/decide.ts'
import type { RequestObserver } from '../telemetry/request-observer.ts'
import type { ListenerSockets } from './acceptor.ts'
import type { BodyBudget } from './body-budget.ts'
import type { Attribution } from './exchange.ts'
import type { HostClient } from './host-client.ts'

export interface ProxyStages {
  /**
   * Takes the record of a connection just accepted. Must be called at once, before the first request is read.
   * @param fd of its socket
   * @param netns network namespace of the listener, where it is not the agent's own
   */
  attribute(peer: InetAddress, fd: number, netns: bigint | undefined): Attribution | undefined
  /** Decides with the rules current now. @throws when they cannot be had. */
  decide(endpoint: Endpoint, caller: Caller, method: string, rawTarget: string): Verdict
  /** Tells whether the host has said yet who may what. */
  isReady(): boolean
  /** Tells whether the request is one of the two uploads that pass unsigned. */
  isExemptUpload(method: string, rawTarget: string): boolean
  /** Numbers the requests of this process from 1. */
  nextRequestId(): number
  /** Value of the date header now. */
  httpDate(): string
  /** Value of the authorization header; `undefined` while no key is held. @throws when signing fails. */
  authorize(request: SignableRequest): string | undefined
  /**
   * Waits for another key than the one behind `authorization`, a value that the host refused.
   * @returns `undefined` when no other is in use or on its way: then the refusal is the host's answer
   */
  keyAfter(authorization: string): Promise<void> | undefined
  /** Tells whether `rawTarget` is what the agent asks itself just now, by way of the kernel's redirection. */
  isSelfProbe(rawTarget: string): boolean
  /** Answers `GET /provision`. */
  provision(query: ProvisionQuery): { readonly finished: boolean; readonly errorMessage: string }
  /** The status document as JSON text. */
  statusJson(): string
  /** The kernel's sockets that listen. */
  readonly sockets: ListenerSockets
  readonly hostClient: HostClient
  readonly bodyBudget: BodyBudget
  readonly observer: RequestObserver
}

export interface ProvisionQuery {
  /** Nanoseconds since the epoch; 0 when the client named none. */
  readonly tick: bigint
  /** Whether the client asks to be served sooner. */
  readonly notify: boolean
}
