"""The checks of the transport matrix, made by the Python SDK 2.x in one connection of the modern era.

What matrix.mjs makes for the SDKs of Node, with the same names, verdicts and words.
"""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourceUpdated, ServerEvent, ToolsListChanged

CHECK_SECONDS = 10
HEARING_SECONDS = 5

NOTE = "fixture://note"
TEMPLATE = "fixture://greeting/{name}"
TOOL_NAMES = (
    "echo", "progress", "elicit", "sample", "slow", "slow_started", "release", "was_cancelled", "touch", "grow", "fail",
)


class Otherwise(Exception):
    """What was observed instead."""


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Otherwise(otherwise)


def same(observed: str, expected: str) -> str:
    expect(observed == expected, observed)
    return observed


def said(result: types.CallToolResult) -> str:
    text = result.content[0].text
    expect(not result.is_error, f"isError: {text}")
    return text


def told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    # Some servers' SDKs put the code into the message too.
    message = re.sub(r"^(MCP error -?\d+: )+", "", str(error) or repr(error))
    return f"error {error.code}: {message}" if isinstance(error, MCPError) else message


async def heard(subscription: Any, wanted: ServerEvent, name: str) -> None:
    with anyio.move_on_after(HEARING_SECONDS):
        async for event in subscription:
            if event == wanted:
                return
        raise Otherwise(f"the stream ended without {name}")
    raise Otherwise(f"no {name} within {HEARING_SECONDS * 1000} ms")


async def tools_list(client: Client) -> str:
    names = {tool.name for tool in (await client.list_tools()).tools}
    missing = [name for name in TOOL_NAMES if name not in names]
    expect(not missing, f"missing: {' '.join(missing)}")
    return f"{len(TOOL_NAMES)} tools"


async def tools_call(client: Client) -> str:
    return same(said(await client.call_tool("echo", {"text": "hello"})), "hello")


async def progress(client: Client) -> str:
    steps: list[str] = []

    async def stepped(done: float, total: float | None, _message: str | None) -> None:
        steps.append(f"{done:g}/{total:g}")

    await client.call_tool("progress", {"steps": 3}, progress_callback=stepped)
    return same(" ".join(steps) or "no progress was heard", "1/3 2/3 3/3")


async def elicitation(client: Client) -> str:
    return same(said(await client.call_tool("elicit", {})), 'accept {"colour":"peer"}')


async def sampling(client: Client) -> str:
    return same(said(await client.call_tool("sample", {})), "sampled by the peer")


async def resources_read(client: Client) -> str:
    resources = (await client.list_resources()).resources
    expect(any(str(resource.uri) == NOTE for resource in resources), f"{NOTE} is not listed")
    templates = (await client.list_resource_templates()).resource_templates
    expect(any(template.uri_template == TEMPLATE for template in templates), f"{TEMPLATE} is not listed")
    texts = [(await client.read_resource(uri)).contents[0].text for uri in (NOTE, "fixture://greeting/Ada")]
    return same(", ".join(texts), "a note, hello Ada")


async def subscription(client: Client) -> str:
    async with client.listen(resource_subscriptions=[NOTE]) as changes:
        touched = said(await client.call_tool("touch", {}))
        await heard(changes, ResourceUpdated(uri=NOTE), "notifications/resources/updated")
    return same(touched, "touched")


async def prompts_get(client: Client) -> str:
    prompts = (await client.list_prompts()).prompts
    expect(any(prompt.name == "greet" for prompt in prompts), "the prompt greet is not listed")
    return same((await client.get_prompt("greet", {"name": "Ada"})).messages[0].content.text, "Hello, Ada")


async def completion(client: Client) -> str:
    completed = await client.complete(types.PromptReference(type="ref/prompt", name="greet"), {"name": "name", "value": "A"})
    return same(" ".join(completed.completion.values), "Ada Alan")


async def cancellation(client: Client) -> str:
    key = {"key": str(uuid.uuid4())}
    given_up = anyio.CancelScope()

    async def slow() -> None:
        with given_up:
            raise Otherwise(f"slow ended too early: {said(await client.call_tool('slow', key))}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slow)
        same(said(await client.call_tool("slow_started", key)), "started")
        given_up.cancel()
    return same(said(await client.call_tool("was_cancelled", key)), "cancelled")


async def list_changed(client: Client) -> str:
    async with client.listen(tools_list_changed=True) as changes:
        said(await client.call_tool("grow", {}))
        await heard(changes, ToolsListChanged(), "notifications/tools/list_changed")
    tools = (await client.list_tools()).tools
    expect(any(tool.name == "grown" for tool in tools), "the new tool is not listed")
    return "heard, and the new tool is listed"


async def error(client: Client) -> str:
    failing = await client.call_tool("fail", {})
    expect(failing.is_error is True, f"a failing tool is no error: {failing.content[0].text}")
    same(failing.content[0].text, "failed as asked")
    try:
        unknown = said(await client.call_tool("no_such_tool", {}))
    except (MCPError, Otherwise) as refused:
        unknown = told(refused)
    return same(unknown, "error -32602: Unknown tool: no_such_tool")


CHECKS: dict[str, Callable[[Client], Awaitable[str]]] = {
    "tools/list": tools_list,
    "tools/call": tools_call,
    "progress": progress,
    "elicitation": elicitation,
    "sampling": sampling,
    "resources/read": resources_read,
    "subscription": subscription,
    "prompts/get": prompts_get,
    "completion": completion,
    "cancellation": cancellation,
    "list_changed": list_changed,
    "error": error,
}


async def made(check: Callable[[Client], Awaitable[str]], client: Client) -> tuple[str, str]:
    try:
        with anyio.move_on_after(CHECK_SECONDS):
            return "passed", await check(client)
        return "failed", f"no answer within {CHECK_SECONDS} s"
    except Exception as failure:
        return "failed", told(failure)


async def matrix(client: Client) -> list[dict[str, str]]:
    report = []
    for name, check in CHECKS.items():
        verdict, detail = await made(check, client)
        report.append({"check": name, "verdict": verdict, "detail": detail})
    return [*report, {"check": "batch", "verdict": "absent", "detail": "not in this version"}]
