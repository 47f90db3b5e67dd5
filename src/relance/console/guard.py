"""Stands before every request: who may ask, in which words, and what a browser may do with the answer.

Promise: a page of another site can't read the console, not even under a name that it points at this address
(DNS rebinding), and nothing that lies in a record can run in the browser.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relance.ports import LOOPBACK_NAMES

__all__ = ["Guard", "host_allowed"]

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def host_allowed(header: str, allowed: Collection[str], *, any_address: bool = False) -> bool:
    """Whether a Host header names this console. `any_address`: also by whatever IP address.

    A rebinding attack always comes under a name (its own), so a bare address can be let in where the console
    was told to listen on all of them.
    """
    host = _host(header)
    if host is None:
        return False
    if host in LOOPBACK_NAMES or host in allowed:
        return True
    if not any_address:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host(header: str) -> str | None:
    """The host without its port, in lower case, an IPv6 address without brackets; None if it can't be one."""
    text = header.strip().lower()
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        port = port[1:]
    else:
        host, colon, port = text.partition(":")
        if colon and not port:
            return None
    if not host or (port and not (port.isascii() and port.isdigit())):
        return None
    return host.removesuffix(".")


class Guard:
    """ASGI middleware: checks the Host header and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, allowed: Collection[str] = (), *, any_address: bool = False) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in allowed)
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by the application, or with 421 (400 where there is no one Host header)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) == 1 and host_allowed(hosts[0], self._allowed, any_address=self._any_address):
            await self._app(scope, receive, guarded)
            return
        text = (
            "This console answers only under the names it was told.\n"
            "Open it as http://localhost:PORT, or start it with --allow-host NAME.\n"
        )
        body = text.encode()
        start: Message = {
            "type": "http.response.start",
            "status": 421 if len(hosts) == 1 else 400,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
        await guarded(start)
        await send({"type": "http.response.body", "body": body})
