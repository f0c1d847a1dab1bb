import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { redactSecrets } from '../../src/base/redact.ts'

const B43 = `${'Ab1/'.repeat(10)}Ab1`
const B86 = `${'Ab1/'.repeat(21)}Ab`
const HEX64 = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
const PAT = 'abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst'
const JWT = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnc2ln'

function table(title: string, rows: readonly (readonly [text: string, redacted: string])[]): void {
  describe(`redactSecrets() ${title}`, () => {
    for (const [text, redacted] of rows) {
      test(JSON.stringify(text.slice(0, 100)), () => {
        assert.equal(redactSecrets(text), redacted)
        assert.equal(redactSecrets(redacted), redacted, 'a second time changes nothing')
      })
    }
  })
}

table('hides in connection strings', [
  ['Server=db;User=u;pwd=hunter2;Encrypt=true', 'Server=db;User=u;pwd=[REDACTED];Encrypt=true'],
  ['Server=db;Password=my secret;User=u', 'Server=db;Password=[REDACTED];User=u'],
  ['Server=db;PWD=hunter2', 'Server=db;PWD=[REDACTED]'],
  ['Endpoint=x;PrimaryKey=abc;Name=n', 'Endpoint=x;PrimaryKey=[REDACTED];Name=n'],
  ['Endpoint=x;SharedAccessKey=abc==', 'Endpoint=x;SharedAccessKey=[REDACTED]'],
  ['x;SecondaryKey=abc', 'x;SecondaryKey=[REDACTED]'],
  [
    'DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc123==;EndpointSuffix=core.windows.net',
    'DefaultEndpointsProtocol=https;AccountName=a;AccountKey=[REDACTED];EndpointSuffix=core.windows.net',
  ],
  ['password="two words";x', 'password="[REDACTED]";x'],
])

table('hides in URLs', [
  [
    'https://a.blob.core.windows.net/c/b?sv=2024-01-01&sig=AbC%2F123%3D&se=2026-01-01',
    'https://a.blob.core.windows.net/c/b?sv=2024-01-01&sig=[REDACTED]&se=2026-01-01',
  ],
  ['{"u":"http://h/?sig=abc\\u0026se=1"}', '{"u":"http://h/?sig=[REDACTED]\\u0026se=1"}'],
  ['https://user1:passw0rd@example.com/repo', 'https://[REDACTED]@example.com/repo'],
  ['https://user1:p@ss@example.com/repo', 'https://[REDACTED]@example.com/repo'],
  ['https://:only@example.com/', 'https://[REDACTED]@example.com/'],
  ['{"url":"http:\\/\\/u:p@h\\/"}', '{"url":"http:\\/\\/[REDACTED]@h\\/"}'],
  ['http://h/?client_secret=abc&x=1', 'http://h/?client_secret=[REDACTED]&x=1'],
])

table('hides in headers', [
  ['Authorization: Bearer abcdef123456 trailing words', 'Authorization: [REDACTED]'],
  ['Authorization: Bearer e1234567890abcdef', 'Authorization: [REDACTED]'],
  ['Authorization: Token abcdef123456\nHost: h', 'Authorization: [REDACTED]\nHost: h'],
  ['authorization = Basic dTpw', 'authorization = [REDACTED]'],
  [`x-ms-azure-host-authorization: Azure-HMAC-SHA256 guid ${HEX64}`, 'x-ms-azure-host-authorization: [REDACTED]'],
  [`curl -H 'Authorization: Bearer a' http://h/`, `curl -H 'Authorization: [REDACTED]' http://h/`],
  ['{"authorization":"Basic dTpw","x":1}', '{"authorization":"[REDACTED]","x":1}'],
  ['{"a":"{\\"authorization\\":\\"Basic x\\"}"}', '{"a":"{\\"authorization\\":\\"[REDACTED]\\"}"}'],
  [`bearer ${JWT}`, 'bearer [REDACTED]'],
  ['a bearer abc.def= then more', 'a bearer [REDACTED] then more'],
])

table('hides tokens and keys by their look', [
  [`x ${JWT} y`, 'x [REDACTED] y'],
  ['x eyJ0eXAiOiJKV1Qi.eyJhdWQi y', 'x [REDACTED] y'],
  [`{"access_token":"${JWT}","expires_in":"3599"}`, '{"access_token":"[REDACTED]","expires_in":"3599"}'],
  [`token%3D${JWT}`, 'token%3D[REDACTED]'],
  [`"key": "${HEX64}"`, '"key": "[REDACTED]"'],
  [`signature ${HEX64.toLowerCase()}.`, 'signature [REDACTED].'],
  [`a key: ${B43}= tail`, 'a key: [REDACTED] tail'],
  [`key ${B86}== tail`, 'key [REDACTED] tail'],
  ['cache=a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1bAzCaAAbCdE=,ssl=True', 'cache=[REDACTED],ssl=True'],
  [`x ${'a'.repeat(44)}AzCa12345Q y`, 'x [REDACTED] y'],
  [`https://dev.azure.com/${PAT}`, 'https://dev.azure.com/[REDACTED]'],
  [`token:${PAT} end`, 'token:[REDACTED] end'],
])

table('hides private keys', [
  ['-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----', '-----[REDACTED]-----'],
  ['-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\nrest', '-----[REDACTED]-----\nrest'],
  [
    '-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A\n\nMIIB\n-----END RSA PRIVATE KEY-----',
    '-----[REDACTED]-----',
  ],
  ['-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ==\n=ab\n-----END PGP PRIVATE KEY BLOCK-----', '-----[REDACTED]-----'],
  ['{"k":"-----BEGIN PRIVATE KEY-----\\nMIIB\\n', '{"k":"-----[REDACTED]'],
  [
    '-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----',
    '-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----',
  ],
])

table('hides in command lines', [
  ['curl --password hunter2 http://169.254.169.254/', 'curl --password [REDACTED] http://169.254.169.254/'],
  ['tool --token=abc next', 'tool --token=[REDACTED] next'],
  ['tool --db-password "two words" next', 'tool --db-password "[REDACTED]" next'],
  [`tool --api-key 'a b' next`, `tool --api-key '[REDACTED]' next`],
  ['tool -pwd x', 'tool -pwd [REDACTED]'],
  ['curl -u user:secret http://h/', 'curl -u user:[REDACTED] http://h/'],
  ['curl --user=user:secret', 'curl --user=user:[REDACTED]'],
  ['"cmd":"x --password=a\\\\"', '"cmd":"x --password=[REDACTED]\\\\"'],
  ['"cmd":"x --password=\\"a b\\" c"', '"cmd":"x --password=\\"[REDACTED]\\" c"'],
])

table('hides behind names', [
  ['client_secret=abcdefgh12345678 next', 'client_secret=[REDACTED] next'],
  ['refresh_token=abcdefgh12345678;rest', 'refresh_token=[REDACTED];rest'],
  ['AWS secret_access_key = Ab1/Ab1/Ab1/Ab1 tail', 'AWS secret_access_key = [REDACTED] tail'],
  ['{"db_password": "a\\"b", "x": 1}', '{"db_password": "[REDACTED]", "x": 1}'],
  ['{"token": 5, "secret":true,"password":{"a":null}}', '{"token": 5, "secret":true,"password":{"a":null}}'],
  ['token=12345678 x', 'token=[REDACTED] x'],
  [`{'apiKey': 'x'}`, `{'apiKey': '[REDACTED]'}`],
  ['{"a":"{\\"password\\":\\"x\\",\\"b\\":1}"}', '{"a":"{\\"password\\":\\"[REDACTED]\\",\\"b\\":1}"}'],
])

table('leaves alone', [
  ['', ''],
  ['Start proxy listener at 127.0.0.1:3080.', 'Start proxy listener at 127.0.0.1:3080.'],
  ['GET /metadata/instance?api-version=2021-02-01', 'GET /metadata/instance?api-version=2021-02-01'],
  [
    'keyGuid: 9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf, authorizationScheme: Azure-HMAC-SHA256, secureChannelState: disabled',
    'keyGuid: 9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf, authorizationScheme: Azure-HMAC-SHA256, secureChannelState: disabled',
  ],
  [
    'Failed to acquire key details: Key(KeyResponse("acquire", 403))',
    'Failed to acquire key details: Key(KeyResponse("acquire", 403))',
  ],
  [`${HEX64}0`, `${HEX64}0`],
  ['a tokenizer, the keyboard, no password here', 'a tokenizer, the keyboard, no password here'],
  ['http://h:80/a@b', 'http://h:80/a@b'],
])

/** Pieces that make patterns start, stop, or trip. */
const PIECES = [
  'password=',
  'Authorization: ',
  '"authorization":"',
  '--token ',
  '--password=',
  '-u a:',
  'secret',
  ': ',
  '=',
  'bearer ',
  'sig=',
  '://a:b@c',
  JWT,
  'eyJ',
  HEX64,
  HEX64.slice(1),
  HEX64.slice(4),
  `${B43}=`,
  PAT,
  'BEGIN PRIVATE KEY-----',
  '-----END ',
  '"',
  "'",
  '\\',
  '\\\\',
  '\n',
  '\r',
  '\t',
  '\b',
  '\f',
  '\u001b',
  '\u2028',
  ';',
  ' ',
  '&',
  '{',
  '}',
  '[',
  ']',
  ',',
  '/',
  'x',
  '\u{1f600}',
]
const hostileText = fc.array(fc.constantFrom(...PIECES), { maxLength: 8 }).map((pieces) => pieces.join(''))

describe('redactSecrets() in any text', () => {
  test('keeps JSON what it is, also JSON inside JSON', () => {
    fc.assert(
      fc.property(fc.array(hostileText, { maxLength: 4 }), fc.boolean(), (strings, isNested) => {
        const members = Object.fromEntries(strings.map((text, index) => [`k${index}`, text]))
        const text = JSON.stringify(isNested ? { inner: JSON.stringify(members) } : members)
        const parsed = JSON.parse(redactSecrets(text))
        if (isNested) JSON.parse(parsed.inner)
        else assert.deepEqual(Object.keys(parsed), Object.keys(members))
      }),
      { numRuns: 3000 },
    )
  })

  test('hides a value wherever it stands', () => {
    const before = [
      'password=',
      'pwd=',
      'AccountKey=',
      '--password ',
      '--api-token=',
      'Authorization: Basic ',
      '"db_password": "',
    ]
    const value = fc.stringMatching(/^[A-Za-z0-9]{8,30}$/)
    fc.assert(
      fc.property(
        fc.constantFrom('', 'x ', 'x;', '{"a":1,'),
        fc.constantFrom(...before),
        value,
        hostileText,
        (start, name, secret, end) => {
          assert.ok(!redactSecrets(`${start}${name}${secret} ${end}`).includes(secret))
        },
      ),
    )
  })
})

describe('redactSecrets() takes linear time, in a megabyte of', () => {
  const units = [
    'a',
    '0',
    '=',
    ':',
    ' ',
    '\t',
    '"',
    '\\',
    '/',
    '-',
    '_',
    '%',
    '.',
    '\n',
    'eyJ',
    'eyJ-',
    'eyJ.',
    'eyJaaaaa',
    'eyJaaaaa.',
    '-eyJ',
    '%eyJ',
    'authorization',
    'authorization:',
    'authorization ',
    'authorization\\',
    'bearer ',
    'bearer',
    '://',
    '://a:',
    '://a',
    ':a',
    'password',
    'password=',
    'pwd="',
    'pwd=\\',
    'sig=',
    '--',
    '-a',
    '--a-',
    ' --a_a-a-',
    ' --password',
    ' --token-a',
    ' --token-a-a ',
    ' -u',
    ' -ua',
    ' -u a:',
    'token',
    'token_',
    'secret-',
    'a_token ',
    'token\\"',
    'secret: ',
    'apikey',
    'BEGIN ',
    'BEGIN A ',
    'BEGIN PRIVATE KEY-----',
    'PRIVATE KEY-----',
    '-----END ',
    `${HEX64.slice(1)} `,
    HEX64,
    `${B43} `,
    `${B43}=`,
    `${PAT} `,
    'AzCa',
    `${'a'.repeat(43)}-`,
    '\\u',
    '\\u0',
    '\\\\"',
    "'",
  ]
  for (const unit of units) {
    test(JSON.stringify(unit), () => {
      const text = unit.repeat(Math.ceil(1_000_000 / unit.length))
      const startMs = performance.now()
      redactSecrets(`password ${text}`)
      const tookMs = performance.now() - startMs
      assert.ok(tookMs < 2000, `${Math.round(tookMs)} ms`)
    })
  }
})
