"""Plays the service manager: prints each message on the socket argv[1], one JSON array of lines with the sender's pid."""
import json, socket, struct, sys

address = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind('\0' + address[1:] if address.startswith('@') else address)
print(json.dumps(['listening']), flush=True)
while True:
    data, ancillary, _, _ = s.recvmsg(65536, 64)
    pid = struct.unpack('iii', ancillary[0][2])[0]
    print(json.dumps([str(pid), *data.decode().split('\n')]), flush=True)
