"""Plays the service manager: prints each message on the socket argv[1], one JSON array of lines with the sender's pid.

What strangers send, see flood.py, costs it some time, as it costs a manager, and is left out."""
import json, socket, struct, sys, time

address = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind('\0' + address[1:] if address.startswith('@') else address)
print(json.dumps(['listening']), flush=True)
while True:
    data, ancillary, _, _ = s.recvmsg(65536, 64)
    if data == b'FLOOD=1':
        time.sleep(0.001)
        continue
    pid = struct.unpack('iii', ancillary[0][2])[0]
    print(json.dumps([str(pid), *data.decode().split('\n')]), flush=True)
