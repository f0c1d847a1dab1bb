# A program of the user's own connects, becomes another one, has its file written over with an allowed program, and runs it:
# the same process, the same file, and now the allowed content.
#   rewritten.py FOLDER ALLOWED_PROGRAM
folder, allowed = sys.argv[1:]
mine = folder + '/mine'
subprocess.run(['cp', '/usr/bin/python3', mine], check=True)
time.sleep(0.5)
child, sock = turn_into(mine, 'rewritten', mine, f'cat {allowed} > {mine}')
tell(child=child)
proceed()
tell(status=status(sock))
