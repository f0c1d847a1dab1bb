/** What an agent that fails closed left in the kernel, removed for good. */

import { findPinFolder, removePins } from '../ebpf/pins.ts'

/**
 * Removes all pins in `folder`, and with them the redirection, unless an agent holds it.
 * @param isForced removes them also while an agent holds the folder; its redirection stays as long as it runs
 * @returns paths of what was removed; none when there was nothing
 * @throws AgentError code PINS_IN_USE, PINS_NOT_OURS, PINS_NOT_POSSIBLE; nothing was removed then
 */
export function removeLeftPins(folder: string, isForced: boolean): string[] {
  if (isForced) return removePins(folder)
  using held = findPinFolder(folder)
  return held === undefined ? [] : removePins(folder)
}
