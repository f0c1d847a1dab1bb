/**
 * Writes debian/copyright from what is installed: `node debian/copyright.ts > debian/copyright`.
 * To be run after the lock file has changed; test/debian/vendor.test.ts tells when it was forgotten.
 * Source: Debian policy, machine-readable copyright files 1.0.
 */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { listVendored } from './vendor.mjs'

const ROOT = dirname(import.meta.dirname)

const BSD_CONDITIONS = `Redistribution and use in source and binary forms, with or without modification, are permitted provided that
the following conditions are met: 1. Redistributions of source code must retain the above copyright notice, this list of
conditions and the following disclaimer. 2. Redistributions in binary form must reproduce the above copyright notice, this
list of conditions and the following disclaimer in the documentation and/or other materials provided with the
distribution.`

const BSD_DISCLAIMER = `THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED
WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE
ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES;
LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN
CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS
SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.`

/** Short names of this format for licences as npm packages name them, and the texts, one paragraph a line. */
const LICENSES: Readonly<Record<string, readonly string[]>> = {
  Expat: readFileSync(join(ROOT, 'LICENSE'), 'utf8')
    .split(/\n\n+/)
    .slice(2)
    .map((paragraph) => paragraph.replace(/\s+/g, ' ').trim()),
  'Apache-2.0': ['On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.'],
  'BSD-2-Clause': [BSD_CONDITIONS, BSD_DISCLAIMER],
  'BSD-3-Clause': [
    `${BSD_CONDITIONS} 3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse
or promote products derived from this software without specific prior written permission.`,
    BSD_DISCLAIMER,
  ],
  ISC: [
    `Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.`,
    `THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT,
OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF
CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS
SOFTWARE.`,
  ],
  'BlueOak-1.0.0': [
    'Purpose: This license gives everyone as much permission to work with this software as possible, while protecting contributors from liability.',
    'Acceptance: In order to receive this license, you must agree to its rules. The rules of this license are both obligations under that agreement and conditions to your license. You must not do anything with this software that triggers a rule that you cannot or will not follow.',
    "Copyright: Each contributor licenses you to do everything with this software that would otherwise infringe that contributor's copyright in it.",
    'Notices: You must ensure that everyone who gets a copy of any part of this software from you, with or without changes, also gets the text of this license or a link to https://blueoakcouncil.org/license/1.0.0.',
    'Excuse: If anyone notifies you in writing that you have not complied with Notices, you can keep your license by taking all practical steps to comply within 30 days after the notice. If you do not do so, your license ends immediately.',
    'Patent: Each contributor licenses you to do everything with this software that would otherwise infringe any patent claims they can license or become able to license.',
    'Reliability: No contributor can revoke this license.',
    'No Liability: As far as the law allows, this software comes as is, without any warranty or condition, and no contributor will be liable to anyone for any damages related to this software or this license, under any kind of legal claim.',
  ],
  WTFPL: ['You just DO WHAT THE FUCK YOU WANT TO.'],
}

/** The runtime's own licence is followed by those of what is linked into it. */
const RUNTIME = /^node-linux-/

/** An npm licence expression in this format. */
export function toShortName(license: string): string {
  return license.replace(/[()]/g, '').replaceAll('MIT', 'Expat').replaceAll(' OR ', ' or ').replaceAll(' AND ', ' and ')
}

/** The copyright lines of an installed package; else its author; else who npm says maintains it. */
function readHolders(folder: string, name: string): string[] {
  if (!existsSync(folder)) return []
  const texts = readdirSync(folder)
    .filter((file) => /^(licen[cs]e|copying|notice)([.-].*)?$/i.test(file))
    .map((file) => readFileSync(join(folder, file), 'utf8'))
  const lines = texts.flatMap((text) => [
    ...text.matchAll(/^[\s*#]*copyright\s*(?:\(c\)|©)?[\s:]*((?:\d|[A-Z]|the ).*)$/gim),
  ])
  const found = lines.map(([, holder]) =>
    holder!
      .replace(/\s+/g, ' ')
      .replace(/,? all rights reserved\.?/i, '')
      .trim(),
  )
  const sensible = found.filter(
    (line) => !/^(notice|license|owner|holder|and |statement)/i.test(line) && !/\[yyyy\]/.test(line),
  )
  if (sensible.length > 0) return [...new Set(sensible)].slice(0, 12)
  const { author } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const person = typeof author === 'string' ? author : author?.name
  return [person ?? `the authors of ${name}`]
}

/** A value over several lines: the first stays behind the colon, the rest is indented. */
function fold(lines: readonly string[]): string {
  return lines.join('\n           ')
}

function wrap(paragraph: string): string {
  return paragraph
    .replace(/\s+/g, ' ')
    .replace(/(.{1,76})(?: |$)/g, ' $1\n')
    .trimEnd()
}

function renderLicense(name: string): string {
  return `License: ${name}\n${LICENSES[name]!.map(wrap).join('\n .\n')}\n`
}

/** Names and licences of what is inside the runtime: the headings of its licence file. */
function readRuntimeParts(): string[] {
  const text = readFileSync(join(ROOT, 'node_modules', `node-linux-${process.arch}`, 'LICENSE'), 'utf8')
  return [...text.matchAll(/^- (.+?), located (?:at|in|under) (.+?),? (?:is|are) licensed as follows:/gm)].map(
    ([, name, place]) => `${name} (${place})`,
  )
}

export function renderCopyright(): string {
  const vendored = listVendored()
  const byHolder = new Map<string, string[]>()
  for (const { name, license, folders, cpu, file } of vendored) {
    if (RUNTIME.test(name)) continue
    // Packages for one architecture are of one hand: what the other one says holds.
    const twin = cpu ? folders[0]!.replace(cpu[0]!, process.arch) : folders[0]!
    const holders = fold(readHolders(join(ROOT, twin), name))
    const stanza = `Copyright: ${holders}\nLicense: ${toShortName(license)}\n`
    byHolder.set(stanza, [...(byHolder.get(stanza) ?? []), `vendor/${file}`])
  }
  const runtime = vendored.filter(({ name }) => RUNTIME.test(name)).map(({ file }) => `vendor/${file}`)
  const used = new Set([...byHolder.keys()].flatMap((stanza) => /License: (.*)/.exec(stanza)![1]!.split(/ or | and /)))
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const bundled = Object.keys(dependencies)
    .sort()
    .join(', ')
    .replace(/, (?!.*,)/, ' and ')
  const alternatives = [...byHolder.keys()].map((stanza) => /License: (.*)/.exec(stanza)![1]!)
  return [
    `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: azure-proxy-agent
Source: https://github.com/Azure/GuestProxyAgent
Comment: Written by debian/copyright.ts from package-lock.json and the
 packages themselves. Inside the executable are the runtime (node-linux-*),
 ${bundled}; the other packages are tools of the build.
 /usr/share/doc/azure-proxy-agent/ has the complete texts of what is inside
 (azure-proxy-agent.LICENSES.txt) and a bill of materials.
`,
    `Files: *\nCopyright: ${readHolders(ROOT, 'azure-proxy-agent')[0]}\nLicense: Expat\n`,
    `Files: ${fold(runtime).replaceAll('           ', '       ')}
Copyright: Node.js contributors
           Joyent, Inc. and other Node contributors
License: Expat and Node-parts
Comment: The official build of Node.js, as its npm package carries it. It is
 built in where the archive has no Node.js that is new enough and not shared.
`,
    ...[...byHolder].map(([stanza, files]) => `Files: ${files.join('\n       ')}\n${stanza}`),
    `License: Node-parts\n${[
      "Node.js contains works under licences of their own, all of them free: Expat, ISC, BSD, Apache-2.0, zlib, Unicode, and the like. Their texts are in the file LICENSE of the runtime's package and in /usr/share/doc/azure-proxy-agent/azure-proxy-agent.LICENSES.txt. The works:",
      `${readRuntimeParts().join('; ')}.`,
    ]
      .map(wrap)
      .join('\n .\n')}\n`,
    ...Object.keys(LICENSES)
      .filter(
        (name) =>
          name === 'Expat' || used.has(name) || alternatives.some((each) => each.split(/ or | and /).includes(name)),
      )
      .map(renderLicense),
  ].join('\n')
}

if (import.meta.main) process.stdout.write(renderCopyright())
