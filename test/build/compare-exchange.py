"""Calls machine code (hexadecimal, in the first argument) as __atomic_compare_exchange and prints what it did, as JSON."""
import ctypes
import json
import mmap
import os
import signal
import sys
import threading

code = bytes.fromhex(sys.argv[1])
memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
Words = ctypes.c_uint64 * 3
compare_exchange = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int
)(address)
SEQ_CST = 5


def call(words, expected, desired, size=8):
    holder, wanted = ctypes.c_uint64(expected), ctypes.c_uint64(desired)
    middle = ctypes.addressof(words) + 8
    result = compare_exchange(size, middle, ctypes.addressof(holder), ctypes.addressof(wanted), SEQ_CST, SEQ_CST)
    return int(result), holder.value


def situation(there):
    words = Words(1, there, 2)
    result, expected = call(words, 0x123456789ABCDEF0, 0xFEDCBA9876543210)
    untouched.append(words[0] == 1 and words[2] == 2)
    return {"result": result, "object": hex(words[1]), "expected": hex(expected)}


def count(words, times):
    for _ in range(times):
        seen = words[1]
        done = 0
        while not done:
            done, seen = call(words, seen, seen + 1)


def signal_of_size(size):
    child = os.fork()
    if child == 0:
        call(Words(0, 0, 0), 0, 1, size)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "none"


untouched = []
report = {
    "equal": situation(0x123456789ABCDEF0),
    "differsInHighHalf": situation(0x123456799ABCDEF0),
    "differsInLowHalf": situation(0x123456789ABCDEF1),
    "neighboursUntouched": False,
}
report["neighboursUntouched"] = all(untouched)
shared = Words(0, 0, 0)
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=count, args=(shared, 100_000)) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
report["countedByTwoThreads"] = shared[1]
report["fourBytes"] = signal_of_size(4)
print(json.dumps(report))
