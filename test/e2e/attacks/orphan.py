# Leaves half of a connection in the listener's queue, with a request in it, while the other half and its port are gone.
#   orphan.py SOURCE_PORT LISTENER_PORT REQUEST
# A window that stays full and a short user timeout end a connection without a reset: the listener's half never hears.
# Prints one line of JSON when its own half is gone.
import json, select, socket, sys

source_port, listener_port, request = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
USER_TIMEOUT_MS = 250

half = socket.socket()
half.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
half.setsockopt(socket.IPPROTO_TCP, 18, USER_TIMEOUT_MS)  # TCP_USER_TIMEOUT
half.bind(('127.0.0.1', source_port))
half.connect(('127.0.0.1', listener_port))
half.setblocking(False)
half.send(request)
try:
    while True:
        half.send(b'GET /filler HTTP/1.1\r\nhost: x\r\nx-filler: ' + b'a' * 8000 + b'\r\n\r\n')
except BlockingIOError:
    pass
poll = select.poll()
poll.register(half, 0)  # errors and hang-ups are always told
ended = poll.poll(10_000)
error = half.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
half.close()
print(json.dumps({'ended': bool(ended), 'errno': error}), flush=True)
