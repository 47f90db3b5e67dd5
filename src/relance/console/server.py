"""Runs the console: where it may listen, and how it stops.

Promise: it listens on this machine only, unless told that something else guards it; a port that is taken is
named together with its holder; SIGTERM and SIGINT end it within a second, whoever is connected.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FrameType
from typing import Any

import uvicorn

from relance.console.app import create_app
from relance.console.asks import Asks
from relance.errors import RelanceError, SettingsError
from relance.ports import holder_of

__all__ = ["PortInUseError", "check_host", "listen", "serve"]


class PortInUseError(RelanceError):
    """Another program listens on the port."""


def check_host(host: str, *, insecure_bind: bool) -> bool:
    """Whether `host` means more than this machine; SettingsError if so and nobody took responsibility."""
    if not host.strip():
        # For the resolver it is this machine, for a server all its addresses: nobody says it on purpose.
        raise SettingsError("host", "is no address: it is empty")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SettingsError("host", f"{host!r} is no address of this machine ({error})") from error
    public = not all(ipaddress.ip_address(each[4][0]).is_loopback for each in found)
    if public and not insecure_bind:
        raise SettingsError(
            "host",
            f"{host} can be reached from other machines, and the console has no login: whoever reaches it"
            " reads every record. Put it behind a proxy that asks for one, or say --insecure-bind",
        )
    return public


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; PortInUseError names the port and the process that has it."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} is in use by {holder_of(port)}: stop that, or choose another with --port"
            ) from error
        raise SettingsError("port", f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def serve(
    bootstrap_servers: str,
    client: Mapping[str, Any] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    insecure_bind: bool = False,
    allow_hosts: Collection[str] = (),
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Run until SIGTERM or SIGINT. `port` 0 takes a free one; `ready` is told the address once it answers.

    Raises SettingsError for a host that is refused, PortInUseError. A broker that is away is no error: the
    pages say so until it is back.
    """
    public = check_host(host, insecure_bind=insecure_bind)
    asks = Asks(bootstrap_servers, client)
    listener = listen(host, port)
    app = create_app(asks, allowed_hosts={host, *allow_hosts}, any_address=public)
    actual = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        loop="asyncio",
        http="h11",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=0.5,  # type: ignore[arg-type]  # it goes to asyncio.wait_for as it is
    )
    shown = "localhost" if not public else f"[{host}]" if ":" in host else host
    with contextlib.closing(listener):
        _Server(config, lambda: ready(f"http://{shown}:{actual}"), asks.stop).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends by returning: uvicorn's own would raise the signal again, and SIGTERM would look like a crash."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Whoever waits for a broker that hangs gets an answer now, instead of a cut line.
        self._stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.force_exit = self.should_exit  # the second one doesn't wait for anybody
            self.should_exit = True

        before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
