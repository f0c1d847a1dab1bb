# Connects, and passes the descriptor to a process of root that is ready to use whatever it is given.
#   passed_descriptor.py attack|victim ABSTRACT_SOCKET_NAME
role, name = sys.argv[1], '\0' + sys.argv[2]
peer = socket.socket(socket.AF_UNIX)
if role == 'victim':
    peer.bind(name)
    peer.listen()
    tell(ready=True)
    got = socket.recv_fds(peer.accept()[0], 1, 1)[1][0]
    tell(status=ask(socket.socket(fileno=got), 'passed', WIRESERVER), uid=os.getuid())
else:
    sock = socket.create_connection(WIRESERVER)
    peer.connect(name)
    socket.send_fds(peer, [b'x'], [sock.fileno()])
