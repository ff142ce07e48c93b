"""How a running node, or the whole lab, is told things: one line of JSON each way over a unix socket.

A question is ``{"command": ..., ...}``; the answer is ``{"ok": true, ...}`` or ``{"ok": false, "error": ..., "mend":
...}``. One question a connection; lines and waits are bounded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from failover.host import RealHost
from failover.lab.haproxy import LabError

MOST_QUESTION = 4096  # bytes
MOST_ANSWER = 1 << 20
MOST_PATH = 90  # bytes of a unix socket's path: Linux takes 107, and HAProxy adds some of its own
QUESTION_WITHIN = 5.0  # seconds

Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


async def serve(path: Path, handle: Handler) -> asyncio.Server:
    """Answer questions at ``path`` until the server is closed. A LabError of ``handle`` becomes the answer."""
    fitting(path)
    host = RealHost()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with host.timeout(QUESTION_WITHIN):
                line = await reader.readline()
            writer.write(json.dumps(await _answer(line, handle)).encode() + b"\n")
            await writer.drain()
            writer.close()
        except (OSError, TimeoutError, ValueError):  # ValueError: a line longer than the limit
            writer.transport.abort()

    return await asyncio.start_unix_server(one, path, limit=MOST_QUESTION)


async def _answer(line: bytes, handle: Handler) -> Mapping[str, Any]:
    try:
        question = json.loads(line)
    except ValueError:
        return {"ok": False, "error": "the question is not one line of JSON", "mend": 'write {"command": "state"}'}
    if not isinstance(question, dict) or not isinstance(question.get("command"), str):
        return {"ok": False, "error": "the question has no command", "mend": 'write {"command": "state"}'}
    try:
        return {"ok": True, **await handle(question)}
    except LabError as error:
        return {"ok": False, "error": str(error), "mend": error.mend}


async def ask(path: Path, question: Mapping[str, Any], timeout: float = 10.0) -> dict[str, Any]:
    """The answer to ``question`` within ``timeout`` seconds. Raises LabError, also when the answer is no."""
    try:
        async with RealHost().timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(fitting(path), limit=MOST_ANSWER)
            try:
                writer.write(json.dumps(question).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.transport.abort()
        answer = json.loads(line)
    except TimeoutError:
        raise LabError(f"{path}: no answer within {timeout:g} s", "it may be stopped: tell it to continue") from None
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}", "is the lab up? start it with: failover lab up") from None
    except ValueError:
        raise LabError(f"{path}: it ended without an answer", "read its log") from None
    if not answer.pop("ok"):
        raise LabError(answer["error"], answer["mend"])
    return dict(answer)


def fitting(path: Path) -> Path:
    """``path``, if a unix socket can have it. Raises LabError."""
    if len(bytes(path)) > MOST_PATH:
        raise LabError(f"{path}: too long for a unix socket (at most {MOST_PATH} bytes)", "choose a shorter folder")
    return path
