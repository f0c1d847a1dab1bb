"""Takes the agent's port, on the address argv[1], before the agent is back, and prints what it got as soon as it got it.
Gives the port free when standard input ends."""
import socket, sys, threading

family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
squat = socket.socket(family)
if family == socket.AF_INET6:
    squat.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
squat.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
squat.bind((sys.argv[1], 3080))
squat.listen(16)
print('listening', flush=True)

def serve():
    while True:
        client, _ = squat.accept()
        print(client.recv(4096), flush=True)
        client.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
        client.close()

threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
