# Asks for the metadata by every spelling of its address that a socket takes, and by ways around a plain connect.
def inet(text):
    return lambda: ask(socket.create_connection((text, 80), 5), 'form')

def inet6(address, *more):
    def go():
        sock = socket.socket(socket.AF_INET6)
        sock.settimeout(5)
        sock.connect((address, 80, *more))
        return ask(sock, 'form')
    return go

def from_mapped_source():
    sock = socket.socket(socket.AF_INET6)
    sock.bind(('::ffff:127.0.0.5', 0))
    sock.connect(('::ffff:169.254.169.254', 80))
    return ask(sock, 'form')

def raw(family, length, kind=socket.AF_INET):
    'connect(2) with a sockaddr of our making: another family, a length that is not the usual one.'
    def go():
        sock = socket.socket(kind)
        address = struct.pack('=HH4s', family, socket.htons(80), socket.inet_aton(IMDS[0])).ljust(length, b'\xff')
        if libc.connect(sock.fileno(), address, length) != 0:
            raise OSError(ctypes.get_errno(), 'connect')
        return ask(sock, 'form')
    return go

def after_unspec():
    'Connected, disconnected by AF_UNSPEC, and connected again with the same socket.'
    sock = socket.create_connection(IMDS)
    assert libc.connect(sock.fileno(), bytes(16), 16) == 0
    sock.connect(IMDS)
    return ask(sock, 'form')

def fast_open():
    sock = socket.socket()
    sock.sendto(request('form'), 0x20000000, IMDS)  # MSG_FASTOPEN
    return status(sock)

def fast_open_connect():
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    sock.connect(IMDS)
    return ask(sock, 'form')

def multipath():
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    sock.connect(IMDS)
    return ask(sock, 'form')

forms = {text: inet(text) for text in
         ['169.254.169.254', '2852039166', '0xa9fea9fe', '0251.0376.0251.0376', '169.254.43518', '169.16689662']}
forms |= {
    'mapped': inet6('::ffff:169.254.169.254'),
    'mapped, hexadecimal': inet6('::ffff:a9fe:a9fe'),
    'mapped, flow label and scope': inet6('::ffff:169.254.169.254', 0xfffff, 1),
    'mapped, from a mapped source': from_mapped_source,
    'compatible': inet6('::169.254.169.254'),
    'translated': inet6('64:ff9b::a9fe:a9fe'),
    'family of another socket': raw(socket.AF_INET, 28, socket.AF_INET6),
    'long sockaddr with rubbish behind': raw(socket.AF_INET, 128),
    'no family': raw(socket.AF_UNSPEC, 16),
    'again after a disconnect': after_unspec,
    'fast open': fast_open,
    'fast open by connect': fast_open_connect,
    'multipath': multipath,
}
tell(**{name: attempt(form) for name, form in forms.items()})
