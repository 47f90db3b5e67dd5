"""The services of the stack: what each is called, how it is started, which port it answers on.

Promise: a service is described by data alone, so that a test can describe a broken one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stack.settings import Settings

API = "order-api"
CONSUMER = "order-consumer-"
CONSOLE = "console"
BROKER = "broker"

RELANCE = str(Path(sys.executable).parent / "relance")


@dataclass(frozen=True)
class Service:
    """One process: its name (of its log and pid file), what it is in words, its command and environment."""

    name: str
    title: str
    port: int
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def in_group(self) -> bool:
        return self.name != CONSOLE


def order_api(settings: Settings) -> Service:
    return _orders(settings, API, "order API", "api", settings.api_port)


def order_consumer(settings: Settings, number: int) -> Service:
    """Second consumer `number`, from 1."""
    port = settings.consumer_port(number)
    return _orders(settings, f"{CONSUMER}{number}", f"order consumer {number}", "consumer", port)


def console(settings: Settings) -> Service:
    command = (RELANCE, "console", "--port", str(settings.console_port))
    env = {"KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap}
    return Service(CONSOLE, "console", settings.console_port, command, env)


def all_services(settings: Settings, consumers: int) -> list[Service]:
    """In the order in which a reader expects them."""
    second = [order_consumer(settings, number) for number in range(1, consumers + 1)]
    return [order_api(settings), *second, console(settings)]


def consumer_number(name: str) -> int | None:
    """3 for `order-consumer-3`, None for another service's name."""
    found = re.fullmatch(re.escape(CONSUMER) + "([1-9][0-9]*)", name)
    return int(found[1]) if found else None


def _orders(settings: Settings, name: str, title: str, role: str, port: int) -> Service:
    env = {**settings.service_env(), "ORDERS_ROLE": role, "INSTANCE_NAME": name, "SERVER_PORT": str(port)}
    return Service(name, title, port, (sys.executable, "-m", "orders"), env)
