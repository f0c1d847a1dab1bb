/** The key document, as the host sends it and as the key file holds it. */

import * as v from 'valibot'
import { AgentError } from '../base/errors.ts'
import { readHostDocument, u32Schema } from './host-document.ts'
import { isKeyGuid, type LatchedKey, SecretKey } from './secret-key.ts'
import { AUTHORIZATION_SCHEME } from './sign.ts'

const KeySchema = v.object({
  authorizationScheme: v.string(),
  incarnationId: v.nullish(u32Schema),
  guid: v.string(),
  issued: v.string(),
  key: v.string(),
})

/**
 * Reads a key document, from the host or from a key file, and checks all that later use relies on.
 * @throws AgentError `KEY_UNREADABLE` or `KEY_INVALID`; neither message repeats anything of the document.
 */
export function parseLatchedKey(text: string): LatchedKey {
  const { authorizationScheme, guid, incarnationId, issued, key } = readHostDocument(
    text,
    KeySchema,
    'the key',
    'KEY_UNREADABLE',
  )
  if (authorizationScheme !== AUTHORIZATION_SCHEME) {
    throw new AgentError('KEY_INVALID', `Cannot use the key: its scheme is not ${AUTHORIZATION_SCHEME}`)
  }
  if (!isKeyGuid(guid)) throw new AgentError('KEY_INVALID', 'Cannot use the key: its guid is not a guid')
  return {
    guid,
    incarnationId: incarnationId ?? undefined,
    issued,
    key: new SecretKey(key),
  }
}

/** Renders the key file: member order and indentation as other agents write it. Holds the key: for the store alone. */
export function renderKeyFile(key: LatchedKey): string {
  const members = {
    authorizationScheme: AUTHORIZATION_SCHEME,
    ...(key.incarnationId === undefined ? {} : { incarnationId: key.incarnationId }),
    guid: key.guid,
    issued: key.issued,
    key: key.key.revealHex(),
  }
  return JSON.stringify(members, null, 2)
}
