"""The Python SDK 2.x as a client over Streamable HTTP: --mode legacy, auto or 2026-07-28 (the default).

Operations and output are those of common.mjs (without listen and expect); matrix: see matrix.py.
"""

import asyncio
import json
import sys
import uuid
import warnings
from typing import Any

import httpx2
import mcp_types as types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from matrix import matrix

ARITY = {
    "list-tools": 0, "list-resources": 0, "list-templates": 0, "list-prompts": 0, "ping": 0,
    "call": 2, "read": 1, "get-prompt": 2, "complete": 3, "subscribe": 1, "set-level": 1,
    "matrix": 0,
}


def parse(words: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {"mode": "2026-07-28", "token": None, "plain": False, "operations": []}
    while words:
        word = words.pop(0)
        if word == "--plain":
            options["plain"] = True
        elif word.startswith("--"):
            options[word[2:]] = words.pop(0)
        elif word in ARITY:
            arguments, words = words[: ARITY[word]], words[ARITY[word] :]
            if len(arguments) < ARITY[word]:
                raise SystemExit(f"{word} needs {ARITY[word]} arguments")
            options["operations"].append((word, arguments))
        else:
            raise SystemExit(f"there is no operation {word}")
    if "url" not in options:
        raise SystemExit("--url is needed")
    return options


def filled(schema: dict[str, Any]) -> Any:
    if "default" in schema:
        return schema["default"]
    choices = schema.get("enum") or [choice["const"] for choice in schema.get("oneOf", [])]
    if choices:
        return choices[0]
    kind = schema.get("type")
    if kind == "boolean":
        return True
    if kind in ("integer", "number"):
        return 1
    if kind == "array":
        items = schema.get("items", {})
        return [filled({"oneOf": items["anyOf"]} if "anyOf" in items else items)]
    return "peer"


async def elicited(_context: Any, params: Any) -> types.ElicitResult:
    schema = params.requested_schema
    if not isinstance(schema, dict):
        schema = schema.model_dump(by_alias=True, exclude_none=True)
    content = {name: filled(field) for name, field in schema.get("properties", {}).items()}
    return types.ElicitResult(action="accept", content=content)


async def sampled(_context: Any, _params: Any) -> types.CreateMessageResult:
    text = types.TextContent(type="text", text="sampled by the peer")
    return types.CreateMessageResult(model="peer", role="assistant", content=text)


async def roots(_context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///peer", name="peer")])


def plain(result: Any) -> Any:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


class Refusals:
    """Remembers the last refused POST, because errors of the SDK do not carry the HTTP status."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    async def watch(self, response: httpx2.Response) -> None:
        if response.request.method == "POST" and response.status_code >= 400:
            self.last = {"httpStatus": response.status_code}
            if challenge := response.headers.get("www-authenticate"):
                self.last["wwwAuthenticate"] = challenge


def causes(error: BaseException) -> BaseException:
    """The first real error inside the groups that task groups raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def failed(op: str, error: BaseException, refusals: Refusals) -> dict[str, Any]:
    error = causes(error)
    told: dict[str, Any] = {"code": None, "message": str(error) or repr(error)}
    if isinstance(error, MCPError):
        told["code"] = error.code
        if error.data is not None:
            told["data"] = error.data
    return {"op": op, "ok": False, "error": {**told, **refusals.last}}


async def perform(client: Client, op: str, arguments: list[str]) -> Any:
    match op:
        case "list-tools":
            return plain(await client.list_tools())
        case "list-resources":
            return plain(await client.list_resources())
        case "list-templates":
            return plain(await client.list_resource_templates())
        case "list-prompts":
            return plain(await client.list_prompts())
        case "ping":
            return plain(await client.send_ping())
        case "call":
            progress: list[dict[str, Any]] = []

            async def stepped(done: float, total: float | None, message: str | None) -> None:
                progress.append({"progress": done, "total": total, "message": message})

            name, given = arguments
            result = await client.call_tool(name, json.loads(given), progress_callback=stepped)
            return {**plain(result), "progress": progress}
        case "read":
            return plain(await client.read_resource(arguments[0]))
        case "get-prompt":
            return plain(await client.get_prompt(arguments[0], json.loads(arguments[1])))
        case "complete":
            prompt, name, value = arguments
            reference = types.PromptReference(type="ref/prompt", name=prompt)
            return plain(await client.complete(reference, {"name": name, "value": value}))
        case "subscribe":
            return plain(await client.subscribe_resource(arguments[0]))
        case "matrix":
            return await matrix(client)
        case "set-level":
            return plain(await client.set_logging_level(arguments[0]))
    raise AssertionError(op)


async def main(options: dict[str, Any]) -> dict[str, Any]:
    refusals = Refusals()
    headers = {"Authorization": f"Bearer {options['token']}"} if options["token"] else {}
    answers = {} if options["plain"] else {
        "sampling_callback": sampled, "elicitation_callback": elicited, "list_roots_callback": roots,
    }
    document: dict[str, Any] = {"connect": None, "operations": [], "notifications": []}

    async def heard(message: Any) -> None:
        if not isinstance(message, Exception):
            document["notifications"].append(plain(message))

    http = create_mcp_http_client(headers=headers)
    http.event_hooks["response"].append(refusals.watch)
    async with http:
        transport = streamable_http_client(options["url"], http_client=http)
        # No two runs are alike, so that a server without sessions can tell them apart.
        info = types.Implementation(name="peer-py2", version=f"1.0.0+{uuid.uuid4()}")
        client = Client(transport, mode=options["mode"], client_info=info, message_handler=heard, **answers)
        try:
            async with client:
                server = client.server_info
                document["connect"] = {"op": "connect", "ok": True, "result": {
                    "protocolVersion": client.protocol_version,
                    "serverInfo": plain(server) if server else None,
                    "capabilities": plain(client.server_capabilities),
                }}
                for op, arguments in options["operations"]:
                    refusals.last = {}
                    try:
                        result = await perform(client, op, arguments)
                        document["operations"].append({"op": op, "ok": True, "result": result})
                    except Exception as error:
                        document["operations"].append(failed(op, error, refusals))
        except Exception as error:
            if document["connect"] is None:
                document["connect"] = failed("connect", error, refusals)
            else:
                document["closed"] = str(causes(error))
    return document


warnings.simplefilter("ignore", MCPDeprecationWarning)
print(json.dumps(asyncio.run(main(parse(sys.argv[1:])))))
