"""`python -m orders`: settings, port, server, in this order; promise: what can't start says why in one line.

Exit status 0 after SIGTERM or SIGINT, 1 where the port or Kafka can't be had, 2 for a wrong setting.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import uvicorn

from orders import logs
from orders.api import create_api
from orders.ports import PortTakenError, listen
from orders.service import OrdersService
from orders.settings import Settings, WrongSettingError
from relance import SettingsError

log = logging.getLogger("orders")


class _Server(uvicorn.Server):
    """Takes a second signal for a first: uvicorn's own would leave without committing what runs.

    The stop is bounded anyway: a second for open connections, four for running orders, one for the counters.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one instance until it is told to stop; the exit status."""
    parser = argparse.ArgumentParser(
        prog="orders", description="The orders service of the course's module 4."
    )
    parser.add_argument("--role", help="api or consumer (ORDERS_ROLE)")
    parser.add_argument("--host", help="address to listen on (SERVER_HOST, default 127.0.0.1)")
    parser.add_argument(
        "--insecure-bind",
        action="store_const",
        const="true",
        help="listen where other machines reach it, though there is no login (SERVER_INSECURE_BIND)",
    )
    parser.add_argument("--port", help="port to listen on (SERVER_PORT, default 18082 or 18083)")
    parser.add_argument("--name", help="this instance's name in the group's statistics (INSTANCE_NAME)")
    options = parser.parse_args(arguments)
    overrides = {
        "ORDERS_ROLE": options.role,
        "SERVER_HOST": options.host,
        "SERVER_INSECURE_BIND": options.insecure_bind,
        "SERVER_PORT": options.port,
        "INSTANCE_NAME": options.name,
    }
    try:
        settings = Settings.load(os.environ, overrides)
    except WrongSettingError as error:
        print(f"orders: wrong setting: {error}", file=sys.stderr)
        return 2
    logs.configure()
    try:
        listener = listen(settings.host, settings.port)
    except PortTakenError as error:
        print(f"orders: {logs.visible(str(error))}", file=sys.stderr)
        return 1
    try:
        service = OrdersService(settings)
    except SettingsError as error:
        print(f"orders: wrong setting: {error}", file=sys.stderr)
        return 2

    def ended() -> None:
        server.should_exit = True

    server = _Server(
        uvicorn.Config(
            create_api(service, on_end=ended),
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            # An open connection can't hold the stop for longer than this.
            timeout_graceful_shutdown=1,
        )
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # The server has its own handlers while it runs; these keep a signal that comes before or after.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info(
        "Orders %s %s listens on http://%s:%d", settings.role, settings.instance, *listener.getsockname()[:2]
    )
    server.run(sockets=[listener])
    return 0 if service.failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
