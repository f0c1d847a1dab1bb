# Opens a connection before the agent is there, and asks on it when the stage says so, twice.
sock = socket.create_connection(WIRESERVER)
tell(port=sock.getsockname()[1])
for turn in ('first', 'second'):
    proceed()
    try:
        sock.sendall(request('early-' + turn, WIRESERVER).replace(b'Connection: close', b'Connection: keep-alive'))
        answer = sock.recv(65536)
        tell(status=int(answer.split(b' ')[1]) if answer else 0)
    except OSError as error:
        tell(status=0, error=errno.errorcode[error.errno])
