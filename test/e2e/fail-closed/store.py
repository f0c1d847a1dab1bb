"""Plays a service manager that keeps descriptors: listens on the notify socket argv[1] and runs argv[2:] when told.
Reads from standard input `start`, or the name of a signal to end the process with. Prints one JSON object for each event.
Source: sd_notify(3) FDSTORE, FDSTOREREMOVE; sd_listen_fds(3)."""
import array, json, os, select, signal, socket, sys, time

address, command = sys.argv[1], sys.argv[2:]
store, child = [], 0

def tell(**facts):
    print(json.dumps(facts), flush=True)

def start():
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
    os.dup2(2, 1)
    # Copied out of the way first: a target may be the number of one that is still to be copied.
    for i, fd in enumerate([os.dup2(fd, 100 + i) for i, (_, fd) in enumerate(store)]):
        os.dup2(fd, 3 + i)
    os.closerange(3 + len(store), 200)
    environment = dict(os.environ, NOTIFY_SOCKET=address)
    if store:
        environment |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': str(len(store)),
                        'LISTEN_FDNAMES': ':'.join(name for name, _ in store)}
    os.execve(command[0], command, environment)

def receive():
    data, ancillary, _, _ = notify.recvmsg(65536, 256)
    fds = array.array('i')
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[:len(content) - len(content) % 4])
    lines = data.decode().split('\n')
    name = next((line[7:] for line in lines if line.startswith('FDNAME=')), 'stored')
    if 'FDSTORE=1' in lines:
        for fd in fds:
            if any(os.path.sameopenfile(fd, kept) for _, kept in store):
                os.close(fd)
            else:
                store.append((name, fd))
    if 'FDSTOREREMOVE=1' in lines:
        for each in [each for each in store if each[0] == name]:
            os.close(each[1])
            store.remove(each)
    tell(event='message', lines=lines, stored=[name for name, _ in store])

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind('\0' + address[1:])
tell(event='listening')
while True:
    readable, _, _ = select.select([sys.stdin, notify], [], [], 0.005)
    if notify in readable:
        receive()
    if child and os.waitpid(child, os.WNOHANG)[0]:
        tell(event='ended', pid=child, at=time.time())
        child = 0
    if sys.stdin in readable:
        word = sys.stdin.readline().strip()
        if word == '':
            break
        if word == 'start':
            child = start()
            tell(event='started', pid=child, at=time.time())
        else:
            os.kill(child, getattr(signal, word))
