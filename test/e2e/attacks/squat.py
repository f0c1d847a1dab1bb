# Holds a connection to the listener, with a request in it, and lets others take the same source port for another one.
#   squat.py SOURCE_PORT LISTENER_PORT REQUEST
# The kernel lets two sockets share addresses and ports if only one of them is bound to a device, and chose its port itself;
# so the caller of this script narrows the range of ports to SOURCE_PORT. Prints one line of JSON, then stays.
import json, socket, sys, time

source_port, listener_port, request = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()

half = socket.socket()
half.connect(('127.0.0.1', listener_port))
assert half.getsockname()[1] == source_port
half.send(request)
half.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo\0')
print(json.dumps({'ended': False}), flush=True)
time.sleep(60)
