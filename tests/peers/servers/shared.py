"""A stdio MCP server without any package, for tests of sessions that share its process. It answers what it was asked together in another
order, with progress in between; what it is told it remembers. HANG in its environment: it never answers `initialize`; CHATTER: it talks all
the time."""

import json
import os
import random
import select
import sys
import threading

dice = random.Random(7)
lock = threading.Lock()
heard = []


def write(line):
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def say(message):
    write(json.dumps({"jsonrpc": "2.0", **message}))


def progress(params, **said):
    token = params.get("_meta", {}).get("progressToken")
    if token is not None:
        say({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1, **said}})


def call(params):
    name, given = params["name"], params.get("arguments", {})
    if name == "flood":
        for _ in range(given["times"]):
            progress(params, message="x" * given["size"])
    if name == "garbage":
        write("no message")
    if name == "news":
        say({"method": "notifications/resources/updated", "params": {"uri": given["uri"]}})
    result = {"echo": given, "heard": heard, "env": os.environ.get(given.get("name", ""), "")}
    return {"content": [{"type": "text", "text": json.dumps(result.get(name))}]}


def answer(message):
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        capabilities = {"tools": {}, "resources": {"subscribe": True}, "logging": {}, "tasks": {"list": {}}}
        info = {"name": "shared", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": info}
    if method == "tools/call":
        progress(params, message=json.dumps(params.get("arguments", {})))
        return call(params)
    return {}


def chatter():
    while True:
        say({"method": "notifications/tools/list_changed"})
        threading.Event().wait(0.02)


def take(message):
    """What has to be answered is returned."""
    method = message.get("method")
    if method and method != "tools/call":
        heard.append({"method": method, **{key: message["params"][key] for key in ("uri", "level") if key in message.get("params", {})}})
    if message.get("id") is None or method is None or (method == "initialize" and "HANG" in os.environ):
        return []
    return [message]


def serve():
    sys.stderr.write("up\n")
    sys.stderr.flush()
    if "CHATTER" in os.environ:
        threading.Thread(target=chatter, daemon=True).start()
    rest, open_ = b"", True
    while open_:
        pending = []
        # Whatever is there by now is answered together.
        while open_ and (not pending or select.select([0], [], [], 0)[0]):
            got = os.read(0, 1 << 16)
            open_ = bool(got)
            *lines, rest = (rest + got).split(b"\n")
            for line in lines:
                pending += take(json.loads(line))
        dice.shuffle(pending)
        for message in pending:
            say({"id": message["id"], "result": answer(message)})


serve()
