import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isExemptUpload } from '../../src/rules/exempt-upload.ts'

describe('isExemptUpload()', () => {
  const rows: readonly (readonly [method: string, target: string, expected: boolean])[] = [
    ['PUT', '/vmAgentLog', true],
    ['PUT', '/VMAGENTLOG', true],
    ['POST', '/machine/?comp=telemetrydata', true],
    ['POST', '/Machine/?Comp=TelemetryData', true],
    ['GET', '/vmAgentLog', false],
    ['put', '/vmAgentLog', false],
    ['POST', '/vmAgentLog', false],
    ['PUT', '/machine/?comp=telemetrydata', false],
    ['PUT', '/vmAgentLog/', false],
    ['PUT', '/vmAgentLog?', false],
    ['PUT', '/vmAgentLog?x=1', false],
    ['PUT', '/vmAgentLog#x', false],
    ['PUT', '//vmAgentLog', false],
    ['PUT', '/vm%41gentLog', false],
    ['PUT', 'http://168.63.129.16/vmAgentLog', false],
    ['POST', '/machine?comp=telemetrydata', false],
    ['POST', '/machine/?comp=telemetrydata&x=1', false],
    ['POST', '/machine/?x=1&comp=telemetrydata', false],
    ['constructor', '/vmAgentLog', false],
  ]
  for (const [method, target, expected] of rows) {
    test(`${method} ${target}: ${expected}`, () => assert.equal(isExemptUpload(method, target), expected))
  }
})
