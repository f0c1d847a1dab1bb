/** Header names of the contract between clients, agent and host, and the two claims the host knows. */

export const AUTHORIZATION_HEADER = 'x-ms-azure-host-authorization'
export const CLAIMS_HEADER = 'x-ms-azure-host-claims'
export const DATE_HEADER = 'x-ms-azure-host-date'
export const TIME_TICK_HEADER = 'x-ms-azure-time-tick'
export const NOTIFY_HEADER = 'x-ms-azure-notify'

/** All headers with this prefix are the agent's word to the host; a client's own never pass. */
export const HOST_HEADER_PREFIX = 'x-ms-azure-host-'

/** Renders the value of the claims header: the host compares these bytes, spaces included. */
export function claimsValue(isRoot: boolean): string {
  return isRoot ? '{ "isRoot": "true"}' : '{ "isRoot": "false"}'
}
