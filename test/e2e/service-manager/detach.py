"""Detaches every bpf link of the cgroup with inode argv[1], again and again for argv[2] seconds, so that no new one lasts."""
import ctypes, os, platform, struct, sys, time

cgroup, until = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
BPF = {'x86_64': 321, 'aarch64': 280}[platform.machine()]
OBJ_GET_INFO_BY_FD, LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID, LINK_DETACH = 15, 30, 31, 34
TYPE_CGROUP = 3
libc = ctypes.CDLL(None, use_errno=True)

def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return libc.syscall(BPF, command, buffer, len(attr)), buffer.raw

def cgroup_of(fd):
    info = ctypes.create_string_buffer(64)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack('IIQ', fd, len(info), ctypes.addressof(info)))
    kind, _, _ = struct.unpack_from('III', info.raw)
    return struct.unpack_from('Q', info.raw, 16)[0] if kind == TYPE_CGROUP else None

detached = 0
while time.monotonic() < until:
    link = 0
    while True:
        result, attr = bpf(LINK_GET_NEXT_ID, struct.pack('III', link, 0, 0))
        if result < 0:
            break
        link = struct.unpack_from('I', attr, 4)[0]
        fd, _ = bpf(LINK_GET_FD_BY_ID, struct.pack('III', link, 0, 0))
        if fd < 0:
            continue
        if cgroup_of(fd) == cgroup and bpf(LINK_DETACH, struct.pack('II', fd, 0))[0] == 0:
            detached += 1
        os.close(fd)
    time.sleep(0.02)
print(detached)
