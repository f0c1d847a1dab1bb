# Connects from a port (0: the kernel's choice), says so as soon as the first packet has left, and asks once it is connected.
#   caller.py SOURCE_PORT ADDRESS PORT REQUEST
# Prints 'dialling', then one line of JSON with the first line of the answer.
import errno, json, select, socket, sys

source_port, address, port, request = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()

sock = socket.socket()
if source_port != 0:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(('', source_port))
sock.setblocking(False)
assert sock.connect_ex((address, port)) == errno.EINPROGRESS
print('dialling', flush=True)
select.select([], [sock], [], 10)
answer, error = b'', sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
if error == 0:
    sock.settimeout(10)
    sock.sendall(request)
    while chunk := sock.recv(65536):
        answer += chunk
print(json.dumps({'errno': error, 'answer': answer.split(b'\r\n')[0].decode()}), flush=True)
