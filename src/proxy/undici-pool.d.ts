/** The pool alone: importing undici's index would load fetch, caches and web sockets, which cost 6 MB. */
declare module 'undici/lib/dispatcher/pool.js' {
  import type { Pool } from 'undici'

  const PoolConstructor: typeof Pool
  export default PoolConstructor
}
