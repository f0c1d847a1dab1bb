# Makes a network namespace of its own with a listener on the agent's port in it, and crosses sockets over.
port = int(sys.argv[1])
here = [socket.socket(), bound('127.0.0.1', port)]
CLONE_NEWUSER, CLONE_NEWNET, SIOCSIFFLAGS = 0x10000000, 0x40000000, 0x8914
if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
    raise OSError(ctypes.get_errno(), 'unshare')
listener = socket.socket()
fcntl.ioctl(listener, SIOCSIFFLAGS, struct.pack('16sh14x', b'lo', 1))  # IFF_UP
listener.bind(LISTENER)
listener.listen()
# A record made here, if any, is under the same address and port as the direct connection there.
there = bound('127.0.0.1', port)
there.connect(LISTENER)
caught = listener.accept()[1][1]
here[0].connect(IMDS)
here[1].connect(LISTENER)
listener.setblocking(False)
tell(caught=caught, redirected=ask(here[0], 'namespace'), direct=ask(here[1], 'namespace'),
     more=attempt(lambda: listener.accept()[1][1]))
