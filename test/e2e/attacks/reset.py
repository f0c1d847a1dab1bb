# Leaves half of a connection in the listener's queue, with a request in it, that ended by a reset.
#   reset.py SOURCE_PORT LISTENER_PORT REQUEST [FILE_TO_WAIT_FOR]
# Prints one line of JSON when its own half is gone.
import json, os, socket, struct, sys, time

source_port, listener_port, request = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()

half = socket.socket()
half.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
half.bind(('127.0.0.1', source_port))
half.connect(('127.0.0.1', listener_port))
half.send(request)
while len(sys.argv) > 4 and not os.path.exists(sys.argv[4]):
    time.sleep(0.01)
half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
half.close()
print(json.dumps({'ended': True}), flush=True)
