/**
 * What the kernel hands to a program in r1, by offset.
 *
 * Byte order: addresses are in network order in memory; `user_port` is a u32 whose low half is the port in network
 * order; in sock_ops `remote_port` is a u32 whose *high* half is that, while `local_port` is in host order.
 *
 * Source: include/uapi/linux/bpf.h, `struct bpf_sock_addr`, `struct bpf_sock_ops`; net/core/filter.c for the orders.
 */

/** `struct bpf_sock_addr`: the context of connect4 and connect6. */
export const SOCK_ADDR = {
  user_ip4: 4,
  /** The last of four words of the IPv6 address; the first is at 8. */
  user_ip6_0: 8,
  user_ip6_1: 12,
  user_ip6_2: 16,
  user_ip6_3: 20,
  user_port: 24,
  protocol: 36,
  sk: 64,
} as const

/** `struct bpf_sock_ops`. */
export const SOCK_OPS = {
  op: 0,
  reply: 4,
  remote_ip4: 24,
  local_ip4: 28,
  remote_port: 64,
  local_port: 68,
  sk: 184,
} as const

/** `struct __sk_buff`, and the `struct bpf_sock` it leads to. */
export const SKB = { sk: 168 } as const
export const SOCK = { state: 72 } as const

/** How long until the first SYN is sent again, in jiffies. Source: linux/bpf.h, BPF_SOCK_OPS_TIMEOUT_INIT. */
export const TIMEOUT_INIT = 1

/** Before the SYN leaves: source address and port are chosen. Source: linux/bpf.h, BPF_SOCK_OPS_TCP_CONNECT_CB. */
export const TCP_CONNECT_CB = 3

/** A client's handshake: the SYN-ACK has come, the ACK has not left. Source: linux/bpf.h, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB. */
export const ACTIVE_ESTABLISHED_CB = 4

/** Source: net/tcp_states.h. */
export const TCP_SYN_SENT = 2
export const TCP_SYN_RECV = 3

export const IPPROTO_TCP = 6
export const IPPROTO_UDP = 17

/** What a connect program answers: let the call go on, or fail it with EPERM. A packet is sent, or dropped. */
export const PROCEED = 1
export const REFUSE = 0
