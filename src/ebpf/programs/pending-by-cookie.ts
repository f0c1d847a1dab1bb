/** How `pending` is addressed where it is a map: by the cookie of the socket, on kernels without socket storage. */

import { mov64 } from '../asm/alu.ts'
import { FP, type Line, R0, R1, R2, R6 } from '../asm/instruction.ts'
import { call } from '../asm/jump.ts'
import { Double, loadMap, stackAddress, store } from '../asm/load-store.ts'
import { STACK } from './stack.ts'

/**
 * Emits `cookie = cookie(ctx); r1 = pending; r2 = &cookie`: what every call on the map begins with.
 *
 * Ledger:   r6 = ctx, in both kinds of program
 * Clobbers: r0 to r5
 */
export function addressPendingByCookie(): Line[] {
  return [
    mov64(R1, R6),
    call('get_socket_cookie'),
    store(FP, STACK.cookie, R0, Double),
    loadMap(R1, 'pending'),
    ...stackAddress(R2, STACK.cookie),
  ]
}
