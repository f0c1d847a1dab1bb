import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { escapeXml, findElement, readXml } from '../../src/telemetry/xml.ts'
import { parseXml } from '../fabric/xml.ts'

const ESCAPED: readonly (readonly [text: string, escaped: string])[] = [
  ['plain é \u{1f600}', 'plain é \u{1f600}'],
  [`&'"<>`, '&amp;&apos;&quot;&lt;&gt;'],
  ['a]]>b', 'a]]&gt;b'],
  ['&amp;', '&amp;amp;'],
  ['tab\tline\nreturn\r', 'tab\tline\nreturn\r'],
  ['\u0000\u0008\u000b\u000c\u001f\u007f\u0085', '\ufffd'.repeat(7)],
  ['\ufffe\uffff', '\ufffd\ufffd'],
  ['\ud800 \udc00 \ud83d', '\ufffd \ufffd \ufffd'],
]
for (const [text, escaped] of ESCAPED) {
  test(`escapeXml() of ${JSON.stringify(text)}`, () => assert.equal(escapeXml(text), escaped))
}

test('whatever is escaped stands in an attribute within CDATA, for a strict reader and for ours', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), (odd, text) => {
      const value = odd + text
      const document = `<a><![CDATA[<b c="${escapeXml(value)}" />]]></a>`
      const inner = parseXml(document).text
      assert.equal(readXml(document, 'it').text, inner)
      const read = readXml(inner, 'it').attributes.get('c')
      assert.equal(read, value.toWellFormed().replace(/(?![\t\n\r])[\p{Control}\ufffe\uffff]/gu, '\ufffd'))
      parseXml(inner)
    }),
  )
})

test('readXml() reads declarations, comments, attributes, text and references', () => {
  const document = `\ufeff<?xml version="1.0" encoding="utf-8"?>
    <!-- <not this> --><G:a xmlns:i="x" b='1"'  c = "&lt;&#65;&#x42;&amp;lt;"><b> t &gt; </b><b>2</b><i:e/><![CDATA[<&]]></G:a >
    `
  const root = readXml(document, 'it')
  assert.deepEqual([root.name, root.text, root.children.length], ['G:a', '<&', 3])
  assert.deepEqual(
    [...root.attributes],
    [
      ['xmlns:i', 'x'],
      ['b', '1"'],
      ['c', '<AB&lt;'],
    ],
  )
  assert.equal(findElement(root, 'b')?.text, 't >')
  assert.equal(findElement(root, 'b', 'c'), undefined)
})

const REFUSED: readonly (readonly [situation: string, document: string, reason: RegExp])[] = [
  ['an empty document', ' \n', /it is empty/],
  ['JSON', '{"a": 1}', /text outside of all elements/],
  ['a document type', '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', /no XML at character 1$/],
  ['an unknown entity', '<a>&b;</a>', /entity that is not known/],
  ['a bare ampersand', '<a b="c & d"/>', /entity that is not known/],
  ['a reference beyond Unicode', '<a>&#x110000;</a>', /entity that is not known/],
  ['an element that is not closed', '<a><b></b>', /ends within an element/],
  ['elements that cross', '<a><b></a></b>', /ends at character 7 that is not open/],
  ['an end without a start', '<a/></a>', /not open/],
  ['two elements on top', '<a/><a/>', /more than one element on top/],
  ['text behind the end', '<a/>x', /text outside/],
  ['an attribute without quotes', '<a b=c/>', /no XML at character 1$/],
  ['an attribute twice', '<a b="1" b="2"/>', /repeated/],
  ['a comment that does not end', '<a><!-- </a>', /no XML at character 4$/],
  ['elements too deep', '<a>'.repeat(40) + '</a>'.repeat(40), /more than 32 elements/],
  ['a document too long', `<a>${'x'.repeat(300_000)}</a>`, /longer than/],
]
for (const [situation, document, reason] of REFUSED) {
  test(`readXml() refuses ${situation}, without repeating it`, () => {
    assert.throws(
      () => readXml(document, 'the paper'),
      (error: Error) => error.message.startsWith('Cannot read the paper: ') && reason.test(error.message),
    )
  })
}

test('readXml() agrees with a strict reader about what is broken in a document', () => {
  const document = '<a b="c"><d>e</d><![CDATA[f]]></a>'
  const isTaken = (read: () => unknown) => {
    try {
      read()
      return true
    } catch {
      return false
    }
  }
  fc.assert(
    fc.property(fc.nat(document.length - 1), fc.constantFrom('', '<', '>', '&', '"', '/', ' x="1"'), (at, put) => {
      const broken = document.slice(0, at) + put + document.slice(at + 1)
      if (isTaken(() => parseXml(broken))) readXml(broken, 'it')
    }),
  )
})
