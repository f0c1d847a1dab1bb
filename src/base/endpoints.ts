/** The three services of the Azure host that the agent guards, and the address of its own listener. */

/** Where a socket is, or its peer. */
export interface InetAddress {
  /** Dotted IPv4. */
  readonly address: string
  /** Host byte order. */
  readonly port: number
}

export type EndpointName = 'wireserver' | 'imds' | 'hostga'

/** One guarded service: IPv4 address in dotted form, TCP port in host byte order. */
export interface Endpoint {
  readonly name: EndpointName
  readonly title: string
  readonly address: string
  readonly port: number
}

export const WIRESERVER: Endpoint = { name: 'wireserver', title: 'WireServer', address: '168.63.129.16', port: 80 }
export const IMDS: Endpoint = { name: 'imds', title: 'IMDS', address: '169.254.169.254', port: 80 }
export const HOSTGA: Endpoint = { name: 'hostga', title: 'HostGAPlugin', address: '168.63.129.16', port: 32526 }

/** In the order in which policies are applied and reported. */
export const ENDPOINTS: readonly Endpoint[] = [WIRESERVER, IMDS, HOSTGA]

/** Where redirected connections arrive. Part of the contract with existing clients, hence not configurable. */
export const LISTENER = { address: '127.0.0.1', port: 3080 } as const

/**
 * Where the agent connects to try its own redirection, and is sent to the listener like everybody. Nobody is there: a
 * connect that the kernel does not redirect is refused on this machine, and no host is asked.
 */
export const SELF_PROBE = { address: '127.169.254.169', port: 3080 } as const

/** Finds the guarded service at `address`:`port`, or `undefined` when that is none of ours. */
export function findEndpoint(address: string, port: number): Endpoint | undefined {
  return ENDPOINTS.find((endpoint) => endpoint.address === address && endpoint.port === port)
}
