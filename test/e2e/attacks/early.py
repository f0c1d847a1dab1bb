# Opens a connection before the agent is there, and asks on it when the stage says so, twice.
#   early.py 4|6
mapped = sys.argv[1] == '6'
sock = socket.socket(socket.AF_INET6 if mapped else socket.AF_INET)
sock.connect(('::ffff:' + WIRESERVER[0] if mapped else WIRESERVER[0], 80))
tell(port=sock.getsockname()[1], pid=os.getpid())
for turn in ('first', 'second'):
    proceed()
    try:
        sock.sendall(request('early-' + turn, WIRESERVER).replace(b'Connection: close', b'Connection: keep-alive'))
        answer = sock.recv(65536)
        tell(status=int(answer.split(b' ')[1]) if answer else 0)
    except OSError as error:
        tell(status=0, error=errno.errorcode[error.errno])
