"""Where the stack lives: folders, ports, topics, group. One frozen object, read from the environment.

Promise: a wrong value ends with the key's name and status 2, before anything is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orders.settings import Settings as OrdersSettings
from orders.settings import WrongSettingError

ROOT = Path(__file__).resolve().parent.parent.parent

SIBLING_PORTS = frozenset({18080, 18081, 18084, 18090, 18091, 9090, 3000, 9404, 8474})
"""Taken by the course's other modules, which may run at the same time."""

STATE_TOPIC = "relance.state"
"""The simulation flag and its like; without "orders" in its name, so that the course's grep shows three."""

LETTER_BYTES = 8 * 1024 * 1024
"""What `orders.DLT` takes at most: a letter is JSON, in which each byte of a value may become six."""

NAMES = (
    "RELANCE_BOOTSTRAP_SERVERS",
    "KAFKA_BOOTSTRAP_SERVERS",
    "RELANCE_CONFIG",
    "KAFKA_GROUP_ID",
    "KAFKA_TOPIC",
    "KAFKA_DLT_TOPIC",
    "KAFKA_RETRY_TOPIC",
)
"""What the stack and its services must agree on."""

TUNING = (
    "KAFKA_AUTO_OFFSET_RESET",
    "MAX_RETRIES",
    "RETRY_STRATEGY",
    "RETRY_BACKOFF_MS",
    "RETRY_MAX_BACKOFF_MS",
    "RETRY_MULTIPLIER",
    "RETRY_JITTER",
)
"""What else the order services read: a service that was started with other values is stale."""

MAX_CONSUMERS = 20
"""`orders` has 6 partitions: a seventh member idles already; this only stops a slip of the keyboard."""


class StackError(Exception):
    """Something went wrong that the reader can act on; its text is all that is shown (status 1)."""


class UsageError(Exception):
    """What was asked for makes no sense; its text is all that is shown (status 2)."""


@dataclass(frozen=True)
class Topic:
    """A topic as the stack makes it."""

    name: str
    partitions: int
    config: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Settings:
    """All that tells one stack from another. Ports are TCP ports on this machine."""

    run_dir: Path
    bootstrap: str
    group: str
    topic: str
    dlt_topic: str
    retry_topic: str
    api_port: int
    first_consumer_port: int
    console_port: int
    tuning: tuple[tuple[str, str], ...] = ()
    """Those of TUNING that were said, by name."""

    @property
    def logs_dir(self) -> Path:
        return self.run_dir / "logs"

    @property
    def pids_dir(self) -> Path:
        return self.run_dir / "pids"

    @property
    def topics(self) -> tuple[Topic, ...]:
        return (
            Topic(self.topic, 6),
            Topic(self.dlt_topic, 3, (("max.message.bytes", str(LETTER_BYTES)),)),
            Topic(self.retry_topic, 3),
            Topic(STATE_TOPIC, 1, (("cleanup.policy", "compact"),)),
        )

    def consumer_port(self, number: int) -> int:
        """The port of second consumer `number` (from 1): the first port, then upwards around taken ones."""
        taken = SIBLING_PORTS | {self.api_port, self.console_port}
        port = self.first_consumer_port
        for _ in range(number - 1):
            port += 1
            while port in taken:
                port += 1
        return port

    def service_env(self) -> dict[str, str]:
        """What every order service is told, by the course's names."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "KAFKA_GROUP_ID": self.group,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_DLT_TOPIC": self.dlt_topic,
            "KAFKA_RETRY_TOPIC": self.retry_topic,
            **dict(self.tuning),
        }

    @property
    def max_retries(self) -> int:
        """As the services understand it; the checks expect as many."""
        return OrdersSettings.load(dict(self.tuning)).max_retries


def from_environment(env: Mapping[str, str]) -> Settings:
    """Settings by environment: RELANCE_* for what is this stack's own, the course's names for the rest.

    What the services read is checked by their own rules. Raises UsageError.
    """
    run_dir = Path(env.get("RELANCE_RUN_DIR") or ROOT / ".run")
    try:
        orders = OrdersSettings.load({key: env[key] for key in (*NAMES, *TUNING) if key in env})
    except WrongSettingError as error:
        raise UsageError(f"wrong setting: {error}") from None
    return Settings(
        run_dir=run_dir if run_dir.is_absolute() else ROOT / run_dir,
        bootstrap=orders.bootstrap_servers,
        group=orders.group_id,
        topic=orders.topic,
        dlt_topic=orders.dlt_topic,
        retry_topic=orders.retry_topic,
        api_port=_port(env, "RELANCE_API_PORT", 18082),
        first_consumer_port=_port(env, "RELANCE_CONSUMER_PORT", 18083),
        console_port=_port(env, "RELANCE_CONSOLE_PORT", 8080),
        tuning=tuple((key, env[key]) for key in TUNING if env.get(key)),
    )


def _port(env: Mapping[str, str], key: str, default: int) -> int:
    text = env.get(key) or str(default)
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= 65535:
        raise UsageError(f"wrong setting: {key}={text!r}: must be a port (1 to 65535)")
    return int(text)


def parse_scale(text: str) -> int:
    """`consumer=N` as a number of second consumers; 0 stops them all."""
    name, equals, count = text.partition("=")
    if not equals or name not in ("consumer", "order-consumer"):
        raise UsageError(f"--scale {text!r}: only the second consumer scales: --scale consumer=N")
    if not count.isascii() or not count.isdigit() or len(count) > 4:
        raise UsageError(f"--scale {text!r}: {count!r} is not a number of consumers (0 to {MAX_CONSUMERS})")
    if int(count) > MAX_CONSUMERS:
        raise UsageError(
            f"--scale {text!r}: more than {MAX_CONSUMERS} is surely a slip; topic orders has 6 partitions"
        )
    return int(count)
