"""The fixture of the transport matrix on the Python SDK 1.x, over WebSocket at /ws on a free loopback port.

Offers what content.mjs offers; prints "listening on URL" once ready.
"""

import json
import re
import socket
import warnings
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import mcp.types as types
import uvicorn
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.websocket import websocket_server
from mcp.shared.exceptions import McpError
from pydantic import AnyUrl
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

NOTE = "fixture://note"
PARAMETERS: dict[str, dict[str, str]] = {
    "echo": {"text": "string"},
    "progress": {"steps": "integer"},
    "elicit": {},
    "sample": {},
    "slow": {"key": "string"},
    "slow_started": {"key": "string"},
    "release": {"key": "string"},
    "was_cancelled": {"key": "string"},
    "touch": {},
    "grow": {},
    "fail": {},
}
COLOUR = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
NAMES = ["Ada", "Alan", "Grace"]
PATIENCE = 5.0
# Shorter than the deadline of a check, so that a silent client is reported by the tool.
ASK = timedelta(seconds=7)


@dataclass
class SlowCall:
    """How one call of `slow` began and ended."""

    started: anyio.Event = field(default_factory=anyio.Event)
    released: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)
    outcome: str = "still running"

    async def run(self) -> str:
        self.started.set()
        self.outcome = "cancelled"
        try:
            await self.released.wait()
            self.outcome = "released"
        finally:
            self.ended.set()
        return self.outcome


# One memory for the whole process, so that a caller may ask after its call in another session.
slow_calls: dict[str, SlowCall] = {}


async def happened(event: anyio.Event) -> bool:
    with anyio.move_on_after(PATIENCE):
        await event.wait()
    return event.is_set()


def text(said: str, failed: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=said)], isError=failed)


def tool(name: str, parameters: dict[str, str]) -> types.Tool:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return types.Tool(name=name, description=f"The fixture's {name}", inputSchema=schema)


def unknown(what: str) -> McpError:
    return McpError(types.ErrorData(code=types.INVALID_PARAMS, message=f"Unknown {what}"))


@dataclass
class Fixture:
    """The tools of one connection: what it subscribed to and grew is its own."""

    server: Server
    grown: bool = False
    subscribed: set[str] = field(default_factory=set)

    def tools(self) -> list[types.Tool]:
        fixed = [tool(name, parameters) for name, parameters in PARAMETERS.items()]
        return [*fixed, tool("grown", {})] if self.grown else fixed

    async def call(self, name: str, given: dict[str, Any]) -> types.CallToolResult:
        call = slow_calls.setdefault(given["key"], SlowCall()) if "key" in given else SlowCall()
        match name:
            case "echo":
                return text(given["text"])
            case "slow":
                return text(await call.run())
            case "slow_started":
                return text("started" if await happened(call.started) else "not started")
            case "release":
                call.released.set()
                return text("released")
            case "was_cancelled":
                return text(call.outcome if await happened(call.ended) else "still running")
            case "fail":
                return text("failed as asked", failed=True)
            case "progress" | "elicit" | "sample" | "touch" | "grow":
                try:
                    return text(await self.reach(name, given))
                except McpError as error:
                    return text(error.error.message, failed=True)
        raise unknown(f"tool: {name}")

    async def reach(self, name: str, given: dict[str, Any]) -> str:
        """The tools that need the client for more than an answer."""
        context = self.server.request_context
        session = context.session
        match name:
            case "progress":
                token = context.meta.progressToken if context.meta else None
                for step in range(1, given["steps"] + 1):
                    if token is not None:
                        await session.send_progress_notification(token, step, given["steps"])
                return f"{given['steps']} steps"
            case "elicit":
                self.needs(types.ClientCapabilities(elicitation=types.ElicitationCapability()), "elicitation")
                params = types.ElicitRequestFormParams(message="Which colour?", requestedSchema=COLOUR)
                request = types.ServerRequest(types.ElicitRequest(params=params))
                answer = await session.send_request(request, types.ElicitResult, request_read_timeout_seconds=ASK)
                return f"{answer.action} {json.dumps(answer.content, separators=(',', ':'))}"
            case "sample":
                self.needs(types.ClientCapabilities(sampling=types.SamplingCapability()), "sampling")
                said = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="Say something"))
                params = types.CreateMessageRequestParams(messages=[said], maxTokens=100)
                request = types.ServerRequest(types.CreateMessageRequest(params=params))
                sampled = await session.send_request(
                    request, types.CreateMessageResult, request_read_timeout_seconds=ASK
                )
                return sampled.content.text
            case "touch":
                if NOTE not in self.subscribed:
                    return f"nobody subscribed to {NOTE}"
                await session.send_resource_updated(AnyUrl(NOTE))
                return "touched"
            case _:
                self.grown = True
                await session.send_tool_list_changed()
                return "grown"

    def needs(self, capability: types.ClientCapabilities, name: str) -> None:
        if not self.server.request_context.session.check_client_capability(capability):
            raise McpError(types.ErrorData(code=0, message=f"the client did not declare {name}"))


def read(uri: str) -> str:
    if uri == NOTE:
        return "a note"
    if greeted := re.fullmatch(r"fixture://greeting/(\w+)", uri):
        return f"hello {greeted[1]}"
    raise unknown(f"resource: {uri}")


def fixture() -> Server:
    server: Server = Server("matrix-fixture", "1.0.0")
    own = Fixture(server)

    # Set directly: the decorators would turn every error into a tool's result.
    async def call_tool(request: types.CallToolRequest) -> types.ServerResult:
        return types.ServerResult(await own.call(request.params.name, request.params.arguments or {}))

    async def list_tools(_: types.ListToolsRequest) -> types.ServerResult:
        return types.ServerResult(types.ListToolsResult(tools=own.tools()))

    async def read_resource(request: types.ReadResourceRequest) -> types.ServerResult:
        uri = request.params.uri
        found = types.TextResourceContents(uri=uri, mimeType="text/plain", text=read(str(uri)))
        return types.ServerResult(types.ReadResourceResult(contents=[found]))

    server.request_handlers[types.CallToolRequest] = call_tool
    server.request_handlers[types.ListToolsRequest] = list_tools
    server.request_handlers[types.ReadResourceRequest] = read_resource

    @server.list_resources()
    async def list_resources() -> list[types.Resource]:
        return [types.Resource(uri=AnyUrl(NOTE), name="note", mimeType="text/plain")]

    @server.list_resource_templates()
    async def list_templates() -> list[types.ResourceTemplate]:
        template = "fixture://greeting/{name}"
        return [types.ResourceTemplate(uriTemplate=template, name="greeting", mimeType="text/plain")]

    @server.subscribe_resource()
    async def subscribe(uri: AnyUrl) -> None:
        own.subscribed.add(str(uri))

    @server.unsubscribe_resource()
    async def unsubscribe(uri: AnyUrl) -> None:
        own.subscribed.discard(str(uri))

    @server.list_prompts()
    async def list_prompts() -> list[types.Prompt]:
        return [types.Prompt(name="greet", description="Greets", arguments=[types.PromptArgument(name="name", required=True)])]

    @server.get_prompt()
    async def get_prompt(name: str, given: dict[str, str] | None) -> types.GetPromptResult:
        if name != "greet":
            raise unknown(f"prompt: {name}")
        said = types.TextContent(type="text", text=f"Hello, {(given or {}).get('name')}")
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=said)])

    @server.completion()
    async def complete(_reference: Any, argument: types.CompletionArgument, _context: Any) -> types.Completion:
        values = [name for name in NAMES if name.startswith(argument.value)]
        return types.Completion(values=values, total=len(values), hasMore=False)

    return server


async def connection(websocket: WebSocket) -> None:
    server = fixture()
    options = server.create_initialization_options(NotificationOptions(tools_changed=True))
    # The SDK never declares subscriptions by itself.
    options.capabilities.resources.subscribe = True
    async with websocket_server(websocket.scope, websocket.receive, websocket._send) as (incoming, outgoing):
        await server.run(incoming, outgoing, options)


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on ws://127.0.0.1:{listener.getsockname()[1]}/ws", flush=True)
    app = Starlette(routes=[WebSocketRoute("/ws", connection)])
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


main()
