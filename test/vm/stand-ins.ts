/** Makes packages that stand in for older ones: what an upgrade meets on a machine. */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { run } from './package.ts'

/** The package under test with a lower version, so that an upgrade to it is one. */
export function makePreviousPackage(deb: string, folder: string): string {
  return pack(folder, 'previous.deb', (tree) => {
    run('dpkg-deb', ['--raw-extract', deb, tree])
    const control = join(tree, 'DEBIAN', 'control')
    writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*$/m, 'Version: 1.0.99-1'))
  })
}

/**
 * A package with the files, and the absence of conffiles, of the reference implementation's. Its program only sleeps.
 * Source: packaging notes of the reference, version 1.0.45.
 */
export function makeReferencePackage(folder: string): string {
  const files: Readonly<Record<string, string>> = {
    'DEBIAN/control': `Package: azure-proxy-agent
Version: 1.0.45-0
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: stand-in for the reference package
`,
    'DEBIAN/postinst': `#!/bin/sh\nsystemctl daemon-reload; systemctl start azure-proxy-agent.service; systemctl enable azure-proxy-agent.service\n`,
    'usr/sbin/azure-proxy-agent': `#!/bin/sh\n[ "$1" = --version ] && echo 1.0.45 && exit\nexec sleep infinity\n`,
    'usr/lib/azure-proxy-agent/ebpf_cgroup.o': 'not one',
    'usr/lib/systemd/system/azure-proxy-agent.service': `[Unit]
Description=Microsoft Azure GuestProxyAgent
DefaultDependencies=no
After=local-fs.target
[Service]
Type=simple
ExecStart=/usr/sbin/azure-proxy-agent
Restart=always
LogsDirectory=azure-proxy-agent
StateDirectory=azure-proxy-agent
[Install]
WantedBy=multi-user.target
`,
    'etc/azure/proxy-agent.json': `{
  "logFolder": "/var/log/azure-proxy-agent",
  "eventFolder": "/var/log/azure-proxy-agent/events",
  "latchKeyFolder": "/var/lib/azure-proxy-agent/keys",
  "monitorIntervalInSeconds": 60,
  "pollKeyStatusIntervalInSeconds": 15,
  "hostGAPluginSupport": 1,
  "ebpfProgramName": "ebpf_cgroup.o",
  "cgroupRoot": "/sys/fs/cgroup",
  "fileLogLevel": "Trace",
  "fileLogLevelForEvents": "Info",
  "fileLogLevelForSystemEvents": "Info"
}
`,
  }
  return pack(folder, 'reference.deb', (tree) => {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(tree, path)), { recursive: true })
      writeFileSync(join(tree, path), text, { mode: text.startsWith('#!') ? 0o755 : 0o644 })
    }
  })
}

function pack(folder: string, name: string, fill: (tree: string) => void): string {
  const tree = mkdtempSync(join(tmpdir(), 'apa-deb-'))
  try {
    fill(tree)
    const out = join(folder, name)
    run('dpkg-deb', ['--root-owner-group', '-Znone', '--build', tree, out])
    return out
  } finally {
    rmSync(tree, { recursive: true, force: true })
  }
}
