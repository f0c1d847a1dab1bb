"""Fills the notify socket argv[1] and keeps it full with argv[2] processes: says so, then goes on until it is killed."""
import os, socket, sys

address = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\0' + address[1:] if address.startswith('@') else address)
s.setblocking(False)
try:
    while True:
        s.send(b'FLOOD=1')
except BlockingIOError:
    print('full', flush=True)
s.setblocking(True)
for _ in range(int(sys.argv[2]) - 1):
    if os.fork() == 0:
        break
while True:
    s.send(b'FLOOD=1')
