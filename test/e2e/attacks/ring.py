# Connects by io_uring, which never calls connect(2), and asks. Prints the errno that says no when the kernel does not allow it.
#   ring.py submit|poll   who carries the request out: this thread, or one of the kernel's
# Source: io_uring(7), io_uring_setup(2); linux/io_uring.h.
SETUP, ENTER, OP_CONNECT, SQPOLL, GETEVENTS, WAKEUP = 425, 426, 16, 2, 1, 2
import mmap
poll = sys.argv[1] == 'poll'
params = bytearray(120)
struct.pack_into('=I', params, 8, SQPOLL if poll else 0)
struct.pack_into('=I', params, 16, 2000)  # the kernel's thread sleeps after these milliseconds
ring = libc.syscall(SETUP, 4, (ctypes.c_char * 120).from_buffer(params))
if ring < 0:
    tell(refused=errno.errorcode[ctypes.get_errno()])
    sys.exit()
sq_entries, cq_entries = struct.unpack_from('=II', params, 0)
sq_tail, sq_mask, sq_array = (struct.unpack_from('=I', params, 40 + 4 * i)[0] for i in (1, 2, 6))
cq_head, cq_tail, cqes = (struct.unpack_from('=I', params, 80 + 4 * i)[0] for i in (0, 1, 5))
size = max(sq_array + 4 * sq_entries, cqes + 16 * cq_entries)
rings = mmap.mmap(ring, size, offset=0)
completions = mmap.mmap(ring, cqes + 16 * cq_entries, offset=0x8000000)
entries = mmap.mmap(ring, 64 * sq_entries, offset=0x10000000)
sock = socket.socket()
address = ctypes.create_string_buffer(struct.pack('=HH4s8x', socket.AF_INET, socket.htons(80), socket.inet_aton(IMDS[0])))
entries[:64] = struct.pack('=BBHiQQIIQ24x', OP_CONNECT, 0, 0, sock.fileno(), 16, ctypes.addressof(address), 0, 0, 7)
struct.pack_into('=I', rings, sq_array, 0)
struct.pack_into('=I', rings, sq_tail, 1)
if libc.syscall(ENTER, ring, 0 if poll else 1, 1, GETEVENTS | (WAKEUP if poll else 0), None, 0) < 0:
    raise OSError(ctypes.get_errno(), 'io_uring_enter')
data, result = struct.unpack_from('=Qi', completions, cqes)
assert data == 7
tell(connected=result, status=ask(sock, 'ring-' + sys.argv[1]) if result == 0 else 0, pid=os.getpid())
