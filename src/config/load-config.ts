/** Finds and reads the configuration file. */

import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { AgentError } from '../base/errors.ts'
import { type Config, parseConfig } from './config.ts'

export const SYSTEM_CONFIG_PATH = '/etc/azure/proxy-agent.json'

/** What the search calls of the world. */
export interface ConfigEnv {
  /** @throws NodeJS.ErrnoException */
  readFile(path: string): string
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Path of the executable; the file may lie beside it. */
  readonly executablePath: string
}

export const configEnv: ConfigEnv = {
  readFile: (path) => readFileSync(path, 'utf8'),
  environment: process.env,
  executablePath: process.execPath,
}

/**
 * Reads `explicitPath`, or else `/etc/azure/proxy-agent.json`, or else `proxy-agent.json` beside the executable.
 * @throws AgentError `CONFIG_INVALID` naming the file, the place in it and the reason.
 */
export function loadConfig(explicitPath: string | undefined, env: ConfigEnv = configEnv): Config {
  const beside = join(dirname(env.executablePath), 'proxy-agent.json')
  const paths = explicitPath === undefined ? [SYSTEM_CONFIG_PATH, beside] : [explicitPath]
  for (const path of paths) {
    let text: string
    try {
      text = env.readFile(path)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' && path !== paths.at(-1)) continue
      throw new AgentError('CONFIG_INVALID', describeFailure(paths, path, code ?? 'unknown error'))
    }
    return parseConfig(text, path, env.environment)
  }
  throw new AgentError('CONFIG_INVALID', describeFailure(paths, paths[0] as string, 'ENOENT'))
}

/** Tells whether `loadConfig(undefined)` threw this because the machine has no configuration file. */
export function isConfigMissing(error: unknown): boolean {
  return error instanceof AgentError && error.message.includes(`${SYSTEM_CONFIG_PATH} or `)
}

function describeFailure(paths: readonly string[], path: string, code: string): string {
  const words = 'Error in reading Config from Json file:'
  if (code !== 'ENOENT') return `${words} ${path}: cannot be read: ${code}`
  return `${words} ${paths.join(' or ')}: no such file; write one or name it with --config FILE`
}
