import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { AgentError } from '../../src/base/errors.ts'
import { formatJsonPath, parseJson } from '../../src/base/json.ts'

/** Runs a parser on `text`: its result as normal text, or 'rejected'. Comparing text spares us the missing prototypes. */
function outcomeOf(parse: (text: string) => unknown, text: string): string {
  try {
    return JSON.stringify(parse(text))
  } catch {
    return 'rejected'
  }
}

function assertSameAsJsonParse(text: string): void {
  assert.equal(
    outcomeOf((t) => parseJson(t).value, text),
    outcomeOf(JSON.parse, text),
  )
}

function failureOf(text: string): AgentError {
  try {
    parseJson(text)
  } catch (error) {
    assert.ok(error instanceof AgentError)
    return error
  }
  return assert.fail('parseJson() accepted the text')
}

describe('parseJson() agrees with JSON.parse', () => {
  test('on every generated document, with white space', () => {
    fc.assert(
      fc.property(
        fc.jsonValue({ maxDepth: 5, noUnicodeString: false }),
        fc.constantFrom(0, 1, '\t', ' \r\n'),
        (value, indent) => assertSameAsJsonParse(JSON.stringify(value, null, indent)),
      ),
    )
  })

  test('on documents spoilt by one edit', () => {
    const alphabet = fc.constantFrom(
      ...'{}[],:"\\/bfnrtu0123456789.eE+- \t\n\u0000\u001f\u2028é',
      '\ufeff',
      'null',
      '\\u00',
      '__proto__',
    )
    const spoilt = fc.tuple(fc.json({ maxDepth: 4 }), fc.nat(), fc.nat(3), alphabet).map(([text, at, cut, piece]) => {
      const start = at % (text.length + 1)
      return text.slice(0, start) + piece + text.slice(start + cut)
    })
    fc.assert(fc.property(spoilt, assertSameAsJsonParse), { numRuns: 2000 })
  })

  test('on short texts made of JSON punctuation', () => {
    const pieces = ['{', '}', '[', ']', ',', ':', '"', '"a"', '\\', '1', '-', '0', '.', 'e', 'true', 'null', ' ', '\n']
    const text = fc.array(fc.constantFrom(...pieces), { maxLength: 8 }).map((parts) => parts.join(''))
    fc.assert(fc.property(text, assertSameAsJsonParse), { numRuns: 5000 })
  })

  for (const text of [
    '-0',
    '1e400',
    '123456789012345678901234567890',
    '0.1e-7',
    '"\\ud83d\\ude00 \\ud800"',
    '"\u007f"',
    '{"__proto__":1,"constructor":{"prototype":2},"toString":3}',
    '{"a":1,"b":2,"a":3}',
    '{"2":0,"1":0}',
  ]) {
    test(`on ${text}`, () => {
      assertSameAsJsonParse(text)
      assert.ok(Object.is(parseJson('-0').value, -0))
    })
  }
})

describe('parseJson() positions', () => {
  const text = ['{', '  "rules": [', '    {"name": "p"},', '    {"name": "q", "name": "r"}', '  ]', '}'].join('\n')

  test('locate() finds the start of a value', () => {
    const document = parseJson(text)
    assert.deepEqual(document.locate([]), { line: 1, column: 1 })
    assert.deepEqual(document.locate(['rules']), { line: 2, column: 12 })
    assert.deepEqual(document.locate(['rules', 0, 'name']), { line: 3, column: 14 })
  })

  test('locate() of a missing member points at the object that lacks it', () => {
    assert.deepEqual(parseJson(text).locate(['rules', 0, 'path']), { line: 3, column: 5 })
    assert.deepEqual(parseJson(text).locate(['constructor', 'name']), { line: 1, column: 1 })
  })

  test('a repeated member is listed with its object, name and position, and the last one counts', () => {
    const document = parseJson(text)
    assert.deepEqual(document.duplicates, [{ path: ['rules', 1], key: 'name', line: 4, column: 19 }])
    assert.equal(JSON.stringify(document.value), '{"rules":[{"name":"p"},{"name":"r"}]}')
  })

  test('names that are written differently but mean the same are duplicates', () => {
    assert.equal(parseJson('{"a":1,"\\u0061":2}').duplicates.length, 1)
    assert.equal(parseJson('{"a":{"a":1},"A":1}').duplicates.length, 0)
    assert.equal(parseJson('{"__proto__":1,"__proto__":2}').duplicates.length, 1)
  })

  test('many duplicates and a deep path stay cheap', () => {
    const members = Array.from({ length: 50_000 }, (_, index) => `\n"k":${index}`).join(',')
    const document = parseJson(`${'[{"x":'.repeat(90)}{${members}}${'}]'.repeat(90)}`)
    assert.equal(document.duplicates.length, 49_999)
    assert.equal(document.duplicates.at(-1)?.line, 50_001)
    assert.equal(
      document.duplicates[0]?.path,
      document.duplicates[1]?.path,
      'one path is shared by the members of one object',
    )
  })
})

describe('parseJson() objects', () => {
  test('a member named __proto__ is a member like any other', () => {
    const value = parseJson('{"__proto__":{"isAdmin":true}}').value as Record<string, unknown>
    assert.deepEqual(Object.keys(value), ['__proto__'])
    assert.equal(value.isAdmin, undefined)
    assert.equal('toString' in value, false)
  })
})

describe('parseJson() failures', () => {
  const rows: readonly (readonly [situation: string, text: string, message: string])[] = [
    ['nothing at all', '', 'a value is expected at line 1, column 1'],
    ['a trailing comma', '{"a":1,\n}', 'a member name in double quotes is expected at line 2, column 1'],
    ['a missing colon', '{"a" 1}', 'a colon is expected at line 1, column 6'],
    ['a missing comma in an object', '{"a":1 "b":2}', 'a comma or a closing brace is expected at line 1, column 8'],
    ['a missing comma in an array', '[1 2]', 'a comma or a closing bracket is expected at line 1, column 4'],
    ['text after the value', '{}\n\nx', 'there is text after the value at line 3, column 1'],
    ['an unfinished string', '["abc', 'the text ends inside a string at line 1, column 6'],
    ['a raw line break in a string', '["a\nb"]', 'a control character stands inside a string at line 1, column 4'],
    ['an unknown escape', '["\\x41"]', 'an escape is not one of those JSON knows at line 1, column 3'],
    ['a short \\u escape', '["\\u00g0"]', 'four hexadecimal digits are expected after \\u at line 1, column 3'],
    ['a leading zero', '01', 'there is text after the value at line 1, column 2'],
    ['a single-quoted string', "'a'", 'a value is expected at line 1, column 1'],
    ['NaN', 'NaN', 'a value is expected at line 1, column 1'],
    ['201 open brackets', '['.repeat(201), 'values are nested deeper than 200 at line 1, column 201'],
    ['a million open brackets', '['.repeat(1_000_000), 'values are nested deeper than 200 at line 1, column 201'],
  ]
  for (const [situation, text, message] of rows) {
    test(situation, () => {
      const error = failureOf(text)
      assert.equal(error.code, 'JSON_SYNTAX')
      assert.equal(error.message, `Cannot parse JSON: ${message}`)
    })
  }

  test('200 brackets are still fine', () => {
    assert.equal(parseJson('['.repeat(200) + ']'.repeat(200)).duplicates.length, 0)
  })

  test('never repeat the text of the document', () => {
    const secret = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
    for (let cut = 1; cut < secret.length; cut++) {
      for (const text of [
        `{"key":"${secret.slice(0, cut)}`,
        `{"key":K${secret.slice(0, cut)}}`,
        `{"key":"\\${secret.slice(0, cut)}`,
      ]) {
        const error = failureOf(text)
        const told = `${error.message} ${JSON.stringify(error.facts)}`
        assert.doesNotMatch(told, /4A|key/)
      }
    }
  })
})

describe('parseJson() and the byte-order mark', () => {
  test('rejects it by default, as JSON.parse does', () => assert.equal(failureOf('\ufeff{}').facts.column, 1))
  test('skips one by option, and does not count it as a column', () => {
    const document = parseJson('\ufeff{"a":1}', { skipByteOrderMark: true })
    assert.deepEqual(document.locate(['a']), { line: 1, column: 6 })
  })
  test('does not skip a second one', () => {
    assert.throws(() => parseJson('\ufeff\ufeff{}', { skipByteOrderMark: true }), { code: 'JSON_SYNTAX' })
  })
})

describe('formatJsonPath()', () => {
  for (const [path, text] of [
    [[], ''],
    [['a', 'b', 0, 'c'], 'a.b[0].c'],
    [[0], '[0]'],
    [['q', 'api-version'], 'q["api-version"]'],
    [['q', 'a"\n'], 'q["a\\"\\n"]'],
    [['q', ''], 'q[""]'],
  ] as const) {
    test(`${JSON.stringify(path)} reads ${text}`, () => assert.equal(formatJsonPath(path), text))
  }
  test('cuts a long name', () => assert.ok(formatJsonPath(['x'.repeat(10_000)]).length < 80))
})
