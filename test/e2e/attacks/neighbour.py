# Holds the source port of another client at another address of the machine, with a request in the listener's queue.
#   neighbour.py SOURCE_PORT LISTENER_PORT REQUEST
import json, socket, sys, time

half = socket.socket()
half.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
half.bind(('127.0.0.2', int(sys.argv[1])))
half.connect(('127.0.0.1', int(sys.argv[2])))
half.send(sys.argv[3].encode())
print(json.dumps({'ended': False}), flush=True)
time.sleep(60)
