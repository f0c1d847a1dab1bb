/** What the host must receive for a sound request, told from what the client wrote, apart from how the agent does it. */

import type { Place, SoundRequest } from './requests.ts'

/** Never for the host, whatever it says. */
export const FOR_THE_CONNECTION = [
  ...['connection', 'expect', 'http2-settings', 'keep-alive', 'proxy-authenticate', 'proxy-authentication-info'],
  ...['proxy-authorization', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'],
]

/** For the host, also when a `connection` header names it. */
const NEVER_DECLARED_AWAY = ['content-length', 'content-type', 'host', 'metadata', 'x-forwarded-for']

/** One of the two that the host takes unsigned. */
export function isUpload(place: string, method: string, target: string): boolean {
  const asked = `${method} ${target.toLowerCase()}`
  return place !== 'imds' && ['PUT /vmagentlog', 'POST /machine/?comp=telemetrydata'].includes(asked)
}

/** The target on the way to the host. */
export function expectedTarget(target: string): string {
  return target.split('#', 1)[0] as string
}

/** Names and values that must arrive, sorted; what the agent adds and the framing of the body are left out. */
export function expectedFields({ fields }: SoundRequest): string[] {
  const isNamed = (wanted: string) => (name: string) => name.toLowerCase() === wanted
  const valuesOf = (wanted: string) => fields.flatMap(([name, value]) => (isNamed(wanted)(name) ? [value] : []))
  const declared = valuesOf('connection').flatMap((value) => value.toLowerCase().split(/[ \t]*,[ \t]*/))
  const names = new Set(fields.map(([name]) => name.toLowerCase()))
  const lines: string[] = []
  for (const name of names) {
    if (FOR_THE_CONNECTION.includes(name) || name === 'content-length' || name.startsWith('x-ms-azure-host-')) continue
    if (declared.includes(name) && !NEVER_DECLARED_AWAY.includes(name)) continue
    // White space at the end of a value is none of it.
    const value = valuesOf(name).join(name === 'cookie' ? '; ' : ', ')
    lines.push(`${name}: ${value.replace(/[ \t]+$/, '')}`)
  }
  return lines.sort()
}

/** The host of a request that named none. */
export function expectedHost(place: Exclude<Place, 'direct'>): string {
  return place === 'imds' ? '169.254.169.254' : '168.63.129.16'
}
