# A child connects and exits; whoever started it holds the socket. The stage then gives the child's pid to an allowed program.
sock = socket.socket()
child = os.fork()
if child == 0:
    sock.connect(IMDS)
    sock.sendall(request('pid'))
    os._exit(0)
os.waitpid(child, 0)
tell(child=child)
proceed()
tell(status=status(sock))
