"""Keeps the pages of other sites out: a browser that shows one may not send orders or turn the switch.

Promise: what changes something is refused with 403 where a page of another origin asks for it, also under a
name that it points at this address (DNS rebinding). Programs send no Origin and are not asked for one.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from orders.problems import ProblemError, problem_response

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """The ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] == "http" and scope["method"] not in _READING:
            request = Request(scope)
            if is_foreign(request.headers.get("origin"), request.headers.get("host", "")):
                refusal = ProblemError(403, "a page of another site may not do this; ours is /docs")
                await problem_response(request, refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_foreign(origin: str | None, host: str) -> bool:
    """Whether a page of `origin`, asking under the name `host`, is another site's; None: no page asks."""
    if origin is None:
        return False
    try:
        same = urlsplit(origin).netloc.lower() == host.lower() != ""
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return True  # no browser writes such a thing
    return not same or not _is_near(name)


def _is_near(name: str) -> bool:
    """An address, or a name without a dot, as localhost or a container's: one with a dot is anybody's."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name
    return True
