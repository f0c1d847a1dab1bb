# Opens connections as fast as it can and leaves each at once, to push the records of others out of the kernel's table.
#   flush.py COUNT
made = 0
while made < int(sys.argv[1]):
    # Ports run out if all connections come from one address: those that the listener ends wait for a minute.
    sock = bound(f'127.0.{1 + made // 2000}.1')
    sock.settimeout(5)
    try:
        sock.connect(IMDS)
        made += 1
    except TimeoutError:
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    sock.close()
tell(made=made)
