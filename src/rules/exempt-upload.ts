/**
 * The two uploads of the guest agent that are too big to sign.
 *
 * The host takes them without a signature, so the proxy streams them and the rules let an elevated caller send them. The
 * comparison is on the whole target as received: an absolute form, another parameter or a trailing slash makes an ordinary
 * request of it.
 */

/** Lower-cased targets by method; methods are case-sensitive, RFC 9110 section 9.1. */
const EXEMPT_TARGETS: ReadonlyMap<string, string> = new Map([
  ['PUT', '/vmagentlog'],
  ['POST', '/machine/?comp=telemetrydata'],
])

/**
 * Tells whether a request is one of the two uploads that go without signature.
 * Says nothing about the endpoint: only WireServer and HostGAPlugin know these targets, the caller has to check that.
 * @param target the request target exactly as received
 */
export function isExemptUpload(method: string, target: string): boolean {
  const exempt = EXEMPT_TARGETS.get(method)
  return exempt !== undefined && exempt.length === target.length && exempt === target.toLowerCase()
}
