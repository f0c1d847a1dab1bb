/**
 * Signs the attested document of IMDS: CMS SignedData over JSON, with a self-made certificate that nobody trusts.
 *
 *   SignedData { version 1, { sha256 }, { data, [0] content }, [0] { certificate }, { SignerInfo: ecdsa-with-SHA256 } }
 *
 * There are no signed attributes, so the signature is over the content bytes themselves.
 *
 * Source: RFC 5652 sections 3, 5.1, 5.3, 5.4; RFC 5280 section 4.1; RFC 5758 section 3.2; X.690 section 8 (DER).
 */

import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'

const OID = {
  data: '1.2.840.113549.1.7.1',
  signedData: '1.2.840.113549.1.7.2',
  sha256: '2.16.840.1.101.3.4.2.1',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  commonName: '2.5.4.3',
} as const

const SERIAL = 1
/** UTCTime up to 2049, GeneralizedTime after, as RFC 5280 section 4.1.2.5 asks. */
const VALID_FROM = '200101000000Z'
const VALID_UNTIL = '20991231235959Z'

/** Signs JSON contents with one certificate, made at first use. */
export class AttestedSigner {
  #key: KeyObject | undefined
  #certificate: Buffer | undefined

  /** The certificate in DER form. */
  get certificate(): Buffer {
    if (this.#certificate === undefined) this.#make()
    return this.#certificate!
  }

  /** Wraps and signs `content`. @returns base64 of the CMS message in DER form. */
  sign(content: Record<string, unknown>): string {
    const certificate = this.certificate
    const bytes = Buffer.from(JSON.stringify(content))
    const signerInfo = sequence(
      integer(1),
      sequence(issuerName(), integer(SERIAL)),
      sequence(oid(OID.sha256)),
      sequence(oid(OID.ecdsaWithSha256)),
      tagged(0x04, sign('sha256', bytes, this.#key!)),
    )
    const signedData = sequence(
      integer(1),
      setOf(sequence(oid(OID.sha256))),
      sequence(oid(OID.data), tagged(0xa0, tagged(0x04, bytes))),
      tagged(0xa0, certificate),
      setOf(signerInfo),
    )
    return sequence(oid(OID.signedData), tagged(0xa0, signedData)).toString('base64')
  }

  #make(): void {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const body = sequence(
      tagged(0xa0, integer(2)),
      integer(SERIAL),
      sequence(oid(OID.ecdsaWithSha256)),
      issuerName(),
      sequence(tagged(0x17, Buffer.from(VALID_FROM)), tagged(0x18, Buffer.from(VALID_UNTIL))),
      issuerName(),
      publicKey.export({ type: 'spki', format: 'der' }),
    )
    const signature = sign('sha256', body, privateKey)
    this.#key = privateKey
    this.#certificate = sequence(body, sequence(oid(OID.ecdsaWithSha256)), tagged(0x03, Buffer.from([0]), signature))
  }
}

function issuerName(): Buffer {
  return sequence(setOf(sequence(oid(OID.commonName), tagged(0x0c, Buffer.from('simulated host')))))
}

/** One DER element: tag, definite length in the shortest form, contents. */
function tagged(tag: number, ...contents: Buffer[]): Buffer {
  const body = Buffer.concat(contents)
  if (body.length < 0x80) return Buffer.concat([Buffer.from([tag, body.length]), body])
  const digits: number[] = []
  for (let left = body.length; left > 0; left = Math.floor(left / 256)) digits.unshift(left % 256)
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length, ...digits]), body])
}

function sequence(...members: Buffer[]): Buffer {
  return tagged(0x30, ...members)
}

function setOf(...members: Buffer[]): Buffer {
  return tagged(0x31, ...members)
}

/** A small non-negative integer, below 128. */
function integer(value: number): Buffer {
  return tagged(0x02, Buffer.from([value]))
}

/** An object identifier: the first two arcs in one byte, the others in base 128, high bits marking "more follows". */
function oid(dotted: string): Buffer {
  const [first, second, ...rest] = dotted.split('.').map(Number)
  const bytes = [first! * 40 + second!]
  for (const arc of rest) {
    const digits = [arc % 128]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) digits.unshift(0x80 | (left % 128))
    bytes.push(...digits)
  }
  return tagged(0x06, Buffer.from(bytes))
}
