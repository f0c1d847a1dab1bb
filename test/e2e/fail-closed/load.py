"""Asks for the goal state over and over, argv[1] clients at a time, each time on a new connection, until standard input
ends. Prints how each attempt ended, and the longest time in which none was answered."""
import asyncio, json, sys, time

REQUEST = b'GET /machine?comp=goalstate HTTP/1.1\r\nHost: x\r\nx-ms-version: 2012-11-30\r\nConnection: close\r\n\r\n'
counts, longest, last, over = {}, 0.0, time.monotonic(), False

async def attempt():
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection('168.63.129.16', 80), 30)
    except ConnectionRefusedError:
        await asyncio.sleep(0.01)
        return 'refused'
    except ConnectionResetError:
        # The listener took it into its queue and was gone before the client looked.
        return 'broken'
    except TimeoutError:
        return 'timed out'
    try:
        writer.write(REQUEST)
        answer = await asyncio.wait_for(reader.read(), 30)
        return answer[9:12].decode() if answer.startswith(b'HTTP/1.1 ') else 'no answer'
    except TimeoutError:
        return 'too late'
    except ConnectionError:
        return 'broken'
    finally:
        writer.close()

async def client():
    global longest, last
    while not over:
        outcome = await attempt()
        counts[outcome] = counts.get(outcome, 0) + 1
        if outcome == '200':
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

async def main():
    global over
    clients = [asyncio.create_task(client()) for _ in range(int(sys.argv[1]))]
    print('started', flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    over = True
    await asyncio.gather(*clients)
    print(json.dumps({'counts': counts, 'longestGapMs': round(1000 * longest)}), flush=True)

asyncio.run(main())
