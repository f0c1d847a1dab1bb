import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findConnectionLimits } from '../../src/agent/connection-limits.ts'

const ROWS: readonly (readonly [
  situation: string,
  openFiles: number,
  expected: readonly [maxConnections: number, perUser: number, reserved: number, isTold: boolean],
])[] = [
  ['enough files', 524_288, [16_384, 1024, 1024, false]],
  ['just enough files', 16_384 + 640, [16_384, 1024, 1024, false]],
  ['one file less', 16_384 + 639, [16_383, 1024, 1023, true]],
  ['the old default of systems', 1024, [512, 512, 32, true]],
  ['hardly any files', 64, [32, 32, 2, true]],
]

for (const [situation, openFiles, [maxConnections, maxConnectionsPerUser, reservedConnections, isTold]] of ROWS) {
  test(`findConnectionLimits() with ${situation}`, () => {
    const config = { maxConnections: 16_384, maxConnectionsPerUser: 1024 }
    const { options, notice } = findConnectionLimits(config, openFiles)
    assert.deepEqual(
      [options.maxConnections, options.maxConnectionsPerUser, options.reservedConnections],
      [maxConnections, maxConnectionsPerUser, reservedConnections],
    )
    assert.equal(notice !== undefined, isTold)
  })
}
