# A program of the user's own connects, becomes another one, has its file written over with an allowed program, and runs it:
# the same process, the same file, and now the allowed content.
#   rewritten.py FOLDER ALLOWED_PROGRAM
folder, allowed = sys.argv[1:]
mine = folder + '/mine'
sock = socket.socket()
sock.set_inheritable(True)
into, _ = os.pipe()
connect = f'''
import os, socket
sock = socket.socket(fileno={sock.fileno()})
sock.connect({IMDS})
sock.sendall({request('rewritten')!r})
os.dup2({into}, 0)
os.execv('/bin/sh', ['sh', '-c', 'cat {allowed} > {mine} && exec {mine} --config -'])
'''
subprocess.run(['cp', '/usr/bin/python3', mine], check=True)
time.sleep(0.5)
child = os.fork()
if child == 0:
    os.set_inheritable(into, True)
    os.execv(mine, ['python3', '-c', connect])
end = time.time() + 20
while open(f'/proc/{child}/cmdline').read() != f'{mine}\0--config\0-\0':
    assert time.time() < end
    time.sleep(0.01)
tell(child=child)
proceed()
tell(status=status(sock))
