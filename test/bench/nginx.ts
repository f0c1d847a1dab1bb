/** Two plain nginx servers: the fast stand-in for the host's metadata service, and a reverse proxy to compare with. */

import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Lab } from '../kernel/lab.ts'

/** Sizes of the two documents, in bytes. */
const SMALL_BYTES = 300
const LARGE_BYTES = 64 * 1024

export const PATHS = { small: '/small.json', large: '/large.json', check: '/check' } as const

/** Where the reverse proxy listens. */
export const PLAIN_PROXY = 'http://127.0.0.1:3081'

/** One process each, so that nothing of it outlives the process that was started. */
const COMMON = `
daemon off;
master_process off;
error_log stderr error;
`
const HTTP = `
  access_log off;
  default_type application/json;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
`

/** `/check` shows what the proxy in front sent: whether it signed. */
function hostConfig(address: string): string {
  return `${COMMON} pid nginx.pid; events { worker_connections 4096; }
http { ${HTTP}
  sendfile on; open_file_cache max=10; tcp_nopush on;
  server {
    listen ${address}:80 backlog=4096;
    root files;
    location = ${PATHS.check} { return 200 "$http_x_ms_azure_host_authorization"; }
  }
}`
}

function proxyConfig(address: string): string {
  return `${COMMON} pid nginx.pid; events { worker_connections 4096; }
http { ${HTTP}
  upstream host { server ${address}:80; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:3081 backlog=4096;
    location / {
      proxy_pass http://host;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
    }
  }
}`
}

/** Makes a JSON document of exactly `sizeBytes`. */
function json(sizeBytes: number): string {
  const frame = '{"compute":""}'
  return frame.replace('""', `"${'x'.repeat(sizeBytes - frame.length)}"`)
}

export interface NginxProcess {
  readonly pid: number
}

/** Starts the host's stand-in on port 80 of `address`, in the lab's namespace and outside its cgroup. */
export function startFastHost(
  lab: Lab,
  folder: string,
  address: string,
  pin: readonly string[],
): Promise<NginxProcess> {
  const prefix = join(folder, 'nginx-host')
  mkdirSync(join(prefix, 'files'), { recursive: true })
  writeFileSync(join(prefix, 'files', PATHS.small), json(SMALL_BYTES))
  writeFileSync(join(prefix, 'files', PATHS.large), json(LARGE_BYTES))
  return start(lab, prefix, hostConfig(address), pin)
}

/** Starts the reverse proxy in front of `address`. It signs nothing and asks nobody. */
export function startPlainProxy(
  lab: Lab,
  folder: string,
  address: string,
  pin: readonly string[],
): Promise<NginxProcess> {
  const prefix = join(folder, 'nginx-proxy')
  mkdirSync(prefix, { recursive: true })
  return start(lab, prefix, proxyConfig(address), pin)
}

async function start(lab: Lab, prefix: string, config: string, pin: readonly string[]): Promise<NginxProcess> {
  mkdirSync(join(prefix, 'tmp'), { recursive: true })
  writeFileSync(join(prefix, 'nginx.conf'), `user root;\n${config}`)
  const [command = '', ...args] = [...pin, '/usr/sbin/nginx', '-p', `${prefix}/`, '-c', 'nginx.conf']
  const child = lab.spawn(command, args, { inCgroup: false })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const ended = once(child, 'close')
  for (let tries = 0; tries < 100; tries++) {
    // It writes the file when it listens.
    if (child.exitCode === null && existsSync(join(prefix, 'nginx.pid'))) return { pid: child.pid as number }
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 50))])
    if (child.exitCode !== null) break
  }
  throw new Error(`nginx did not start: ${said}`)
}
