/**
 * The host's half of the secure channel: which key is offered, which is latched, and what the status document says.
 *
 *            POST key              attested
 *   no key ───────────▶ offered ─────────────▶ latched
 *      ▲                 ▲   │ POST key            │
 *      │                 └───┘ (a new offer)       │ rotate(): incarnation + 1
 *      └───────────────────────────────────────────┘
 *
 * A latched host refuses another `POST key` unless re-latching is allowed; then the offer stands beside the latched key
 * until it is attested. An offered key is demanded of nobody.
 */

import { randomBytes, randomUUID } from 'node:crypto'

export type Mode = 'disabled' | 'audit' | 'enforce'
export type EndpointName = 'wireserver' | 'hostga' | 'imds'
export type ChannelState = 'no-key' | 'offered' | 'latched'
export const ENDPOINT_NAMES: readonly EndpointName[] = ['wireserver', 'hostga', 'imds']
/** The values of `secureChannelState` in protocol 1.0. */
export type ChannelLevel = 'Disabled' | 'Wireserver' | 'WireserverAndImds'

/** A key of the host. `incarnationId` is the one in force when it was offered. */
export interface HostKey {
  readonly guid: string
  /** 64 hexadecimal digits. */
  readonly keyHex: string
  readonly incarnationId: number
  readonly issued: string
}

/** Where a key stands; `retired` keys were latched or offered once, and are remembered to name a late signature. */
export type KeyStanding = 'offered' | 'latched' | 'retired'

/** An item of `authorizationRules`, as the host sends it; `id` is made up, and changed with the item, if left out. */
export interface RuleItem {
  defaultAccess: 'allow' | 'deny'
  /** Sent as it is; what is no mode at all counts as `audit` here: the host serves, and the record shows. */
  mode: Mode | (string & {})
  id?: string
  rules?: unknown
}

/** The rule documents of protocol 2.0. `hostga` is sent but means nothing: HostGAPlugin follows `wireserver`. */
export interface ChannelRules {
  wireserver?: RuleItem
  imds?: RuleItem
  hostga?: RuleItem
}

/** What the operator of the host decides about the channel. */
export interface ChannelOptions {
  protocol: '1.0' | '2.0'
  /** Protocol 1.0: the state sent. */
  level: ChannelLevel
  /** Protocol 2.0: the overall switch. */
  enabled: boolean
  /** Protocol 2.0: `undefined` sends `null`. */
  rules: ChannelRules | undefined
  requiredClaims: readonly string[]
  /** Answer another `POST key` while a key is latched, instead of 403. */
  allowReLatch: boolean
  /** Offer the same key again to a repeated `POST key`, instead of a new one. */
  repeatOffer: boolean
  keyDeliveryMethod: string
}

export const DEFAULT_CHANNEL: ChannelOptions = {
  protocol: '2.0',
  level: 'Disabled',
  enabled: false,
  rules: undefined,
  requiredClaims: ['isRoot'],
  allowReLatch: false,
  repeatOffer: false,
  keyDeliveryMethod: 'http',
}

const AUTHORIZATION_SCHEME = 'Azure-HMAC-SHA256'
const MODES: readonly Mode[] = ['disabled', 'audit', 'enforce']
const RETIRED_KEYS_KEPT = 64

/** Holds the keys and the channel's settings. Time enters through `nowMs`, the host's own clock. */
export class Channel {
  readonly #nowMs: () => number
  readonly #retired = new Map<string, HostKey>()
  #options: ChannelOptions = DEFAULT_CHANNEL
  #latched: HostKey | undefined
  #offered: HostKey | undefined
  #incarnationId = 1
  #ruleEdition = 0

  constructor(options: Partial<ChannelOptions>, nowMs: () => number) {
    this.#nowMs = nowMs
    this.configure(options)
  }

  get options(): ChannelOptions {
    return this.#options
  }

  get incarnationId(): number {
    return this.#incarnationId
  }

  get latchedGuid(): string | undefined {
    return this.#latched?.guid
  }

  get offeredGuid(): string | undefined {
    return this.#offered?.guid
  }

  get state(): ChannelState {
    if (this.#latched !== undefined) return 'latched'
    return this.#offered === undefined ? 'no-key' : 'offered'
  }

  /** Changes what is given and keeps the rest. Rule items without `id` get one that no earlier item had. */
  configure(changes: Partial<ChannelOptions>): void {
    const merged: ChannelOptions = { ...this.#options, ...changes }
    if (changes.rules) merged.rules = this.#withIds(changes.rules)
    this.#options = merged
  }

  /** Tells how strictly an endpoint is guarded. A channel that is switched off guards nothing, whatever the rules say. */
  modeOf(endpoint: EndpointName): Mode {
    const { protocol, level, enabled, rules } = this.#options
    if (protocol === '1.0') {
      if (level === 'Disabled') return 'disabled'
      if (endpoint !== 'imds') return 'enforce'
      return level === 'WireserverAndImds' ? 'enforce' : 'audit'
    }
    if (!enabled) return 'disabled'
    const mode = (endpoint === 'imds' ? rules?.imds?.mode : rules?.wireserver?.mode) ?? 'disabled'
    return MODES.find((known) => known === mode.toLowerCase()) ?? 'audit'
  }

  /** Builds the answer to `GET /secure-channel/status`. */
  statusDocument(): Record<string, unknown> {
    const { protocol, level, enabled, rules, requiredClaims, keyDeliveryMethod } = this.#options
    const common = {
      authorizationScheme: AUTHORIZATION_SCHEME,
      keyDeliveryMethod,
      keyGuid: this.#latched?.guid ?? null,
      keyIncarnationId: this.#incarnationId,
      requiredClaimsHeaderPairs: requiredClaims,
    }
    if (protocol === '1.0') return { ...common, secureChannelState: level, version: '1.0' }
    return { ...common, secureChannelEnabled: enabled, version: '2.0', authorizationRules: rules ?? null }
  }

  /** Offers a key: the answer to `POST /secure-channel/key`. @returns `undefined` when the host refuses. */
  offerKey(): Record<string, unknown> | undefined {
    if (this.#latched !== undefined && !this.#options.allowReLatch) return undefined
    if (this.#offered === undefined || !this.#options.repeatOffer) {
      this.#retire(this.#offered)
      this.#offered = {
        guid: randomUUID(),
        keyHex: randomBytes(32).toString('hex').toUpperCase(),
        incarnationId: this.#incarnationId,
        issued: new Date(this.#nowMs()).toISOString().replace(/\.\d+Z$/, 'Z'),
      }
    }
    const { guid, keyHex, incarnationId, issued } = this.#offered
    return { authorizationScheme: AUTHORIZATION_SCHEME, incarnationId, guid, issued, key: keyHex }
  }

  /**
   * Latches the offered key once its holder has proved to have it; a repeated proof of the latched key is fine.
   * @param hasProof whether the request was rightly signed with the key called `guid`.
   */
  attest(guid: string, hasProof: boolean): 'latched' | 'wrong-proof' | 'not-offered' {
    const isOffered = this.#offered?.guid === guid
    if (!isOffered && this.#latched?.guid !== guid) return 'not-offered'
    if (!hasProof) return 'wrong-proof'
    if (isOffered) {
      this.#retire(this.#latched)
      this.#latched = this.#offered
      this.#offered = undefined
    }
    return 'latched'
  }

  /** Makes `key` the latched one without any exchange, for tests that start in the middle. */
  latch(key: { guid: string; keyHex: string }): void {
    this.#retire(this.#latched)
    this.#offered = undefined
    this.#retired.delete(key.guid)
    this.#latched = { ...key, incarnationId: this.#incarnationId, issued: new Date(this.#nowMs()).toISOString() }
  }

  /** Forgets the keys and asks for a new one, as raising the key incarnation in the control plane does. */
  rotate(): void {
    this.#incarnationId++
    this.#retire(this.#latched)
    this.#retire(this.#offered)
    this.#latched = undefined
    this.#offered = undefined
  }

  /** Finds a key by the guid that a signature names. */
  findKey(guid: string): { key: HostKey; standing: KeyStanding } | undefined {
    if (this.#latched?.guid === guid) return { key: this.#latched, standing: 'latched' }
    if (this.#offered?.guid === guid) return { key: this.#offered, standing: 'offered' }
    const key = this.#retired.get(guid)
    return key === undefined ? undefined : { key, standing: 'retired' }
  }

  #retire(key: HostKey | undefined): void {
    if (key === undefined) return
    this.#retired.set(key.guid, key)
    if (this.#retired.size > RETIRED_KEYS_KEPT) this.#retired.delete(this.#retired.keys().next().value!)
  }

  #withIds(rules: ChannelRules): ChannelRules {
    this.#ruleEdition++
    const named: ChannelRules = {}
    for (const name of ENDPOINT_NAMES) {
      const item = rules[name]
      if (item !== undefined) named[name] = { ...item, id: item.id ?? `${name}-rules-${this.#ruleEdition}` }
    }
    return named
  }
}
