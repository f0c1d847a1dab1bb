"""Shuts the listening socket on port 3080 of process argv[1], behind its back, and keeps the port, so that it can have no other."""
import ctypes, os, signal, socket, sys, time

pid = int(sys.argv[1])
table = [line.split() for line in open(f'/proc/{pid}/net/tcp')][1:]
inode = next(row[9] for row in table if row[1].endswith(':0C08') and row[3] == '0A')
fd = next(int(n) for n in os.listdir(f'/proc/{pid}/fd') if os.readlink(f'/proc/{pid}/fd/{n}') == f'socket:[{inode}]')
PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)
copy = libc.syscall(PIDFD_GETFD, os.pidfd_open(pid), fd, 0)
assert copy >= 0, os.strerror(ctypes.get_errno())
os.kill(pid, signal.SIGSTOP)
socket.socket(fileno=copy).shutdown(socket.SHUT_RDWR)
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
taken.bind(('127.0.0.1', 3080))
taken.listen(0)
os.kill(pid, signal.SIGCONT)
print('kept', flush=True)
time.sleep(60)
