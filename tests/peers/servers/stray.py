"""A stdio MCP server without any package, for tests of how servers' processes end. `echo` answers; `stray` leaves a process behind that
forked twice and called setsid; `die` ends in the middle of a call; `mutter` writes its argument to stderr. Its last argument tells one run
of it from others."""

import json
import os
import signal
import sys
import time


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def stray():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            while True:
                time.sleep(1000)
        os._exit(0)
    os.wait()


for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if number is None:
        continue
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "stray", "version": "1"}}
    elif method == "tools/call":
        name = message["params"]["name"]
        if name == "stray":
            stray()
        if name == "mutter":
            print(message["params"]["arguments"]["say"], file=sys.stderr, flush=True)
        if name == "die":
            os._exit(3)
        result = {"content": [{"type": "text", "text": name}]}
    else:
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "stray", "die", "mutter")]}
    say({"jsonrpc": "2.0", "id": number, "result": result})
