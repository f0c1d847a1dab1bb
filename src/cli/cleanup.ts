/** `cleanup`: removes what an agent that fails closed left in the kernel. */

import { removeLeftPins } from '../agent/left-pins.ts'
import { describeError } from '../base/errors.ts'
import { escapeControls } from '../base/text.ts'
import { DEFAULT_PIN_FOLDER } from '../config/config.ts'
import { isConfigMissing, loadConfig } from '../config/load-config.ts'
import type { CleanupCommand } from './cleanup-arguments.ts'

/** Runs the command. @returns the exit code: 0 nothing is left; 1 something is */
export function runCleanup(command: CleanupCommand, print: (fd: 1 | 2, text: string) => void): number {
  try {
    const folder = configuredFolder(command.configPath)
    const removed = removeLeftPins(folder, command.isForced)
    const lines = removed.length === 0 ? [`nothing is left in ${folder}`] : removed.map((path) => `removed ${path}`)
    for (const line of lines) print(1, `${escapeControls(line)}\n`)
    return 0
  } catch (error) {
    print(2, `azure-proxy-agent: ${escapeControls(describeError(error))}\n`)
    return 1
  }
}

/** When the package is removed its configuration may be gone already. */
function configuredFolder(configPath: string | undefined): string {
  try {
    return loadConfig(configPath).pinFolder
  } catch (error) {
    if (configPath === undefined && isConfigMissing(error)) return DEFAULT_PIN_FOLDER
    throw error
  }
}
