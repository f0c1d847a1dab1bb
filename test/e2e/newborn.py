"""A container in short: a network namespace of its own, its loopback interface up, and one request at once.

argv: COUNT AT_ONCE [UID]; prints one line of JSON for each: the answer's status or the error, and milliseconds since birth.
"""
import ctypes, fcntl, json, os, socket, struct, sys, time

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def live():
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    born = time.monotonic()
    since = lambda: round((time.monotonic() - born) * 1000, 2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
    if uid:
        os.setgid(uid)
        os.setuid(uid)
    told = {"connectMs": since()}
    try:
        with socket.socket() as client:
            client.settimeout(20)
            client.bind(("127.0.0.1", 45000))
            client.connect(("169.254.169.254", 80))
            told["connectedMs"] = since()
            client.sendall(b"GET /metadata/instance?api-version=2021-02-01 HTTP/1.1\r\nHost: imds\r\nMetadata: true\r\nConnection: close\r\n\r\n")
            told["status"] = int(client.makefile("rb").readline().split()[1])
            told["answeredMs"] = since()
    except (OSError, IndexError) as error:
        told["error"] = repr(error)
    os.write(1, (json.dumps(told) + "\n").encode())


count, at_once = int(sys.argv[1]), int(sys.argv[2])
uid = int(sys.argv[3]) if len(sys.argv) > 3 else 0
running = 0
for _ in range(count):
    if running == at_once:
        os.wait()
        running -= 1
    if os.fork() == 0:
        live()
        os._exit(0)
    running += 1
while running:
    os.wait()
    running -= 1
