"""The service's settings, from the environment names of the course; a wrong one never starts anything.

Promise: `Settings.load` returns a checked object or raises `WrongSettingError`, whose text is one line that
names the key, the value and what is allowed. An empty variable counts as unset (compose files pass those).
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import relance
from relance import RetryPolicy, SettingsError

Role = Literal["api", "consumer"]
Strategy = Literal["immediate", "fixed", "exponential", "exponential-jitter"]
Start = Literal["earliest", "latest", "fail"]

DEFAULT_PORTS: Final[dict[str, int]] = {"api": 18082, "consumer": 18083}
START_OF: Final[dict[str, Start]] = {"earliest": "earliest", "latest": "latest", "none": "fail"}
"""Kafka's `auto.offset.reset` words, and relance's word for each."""

SERVERS: Final = "KAFKA_BOOTSTRAP_SERVERS"
RELANCE_SERVERS: Final = "RELANCE_BOOTSTRAP_SERVERS"

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,249}")
_WHOLE = re.compile(r"[0-9]{1,12}")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


class WrongSettingError(ValueError):
    """A setting that cannot be right: `KEY=value: what is allowed`, in one line."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={value!r}: {allowed}")
        self.key = key


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service runs with; `load` says from which variable each comes. `_ms` are milliseconds."""

    role: Role
    instance: str
    """The name under which this process publishes its counters; unique in the group."""
    host: str
    insecure_bind: bool
    """Whether `host` may be an address that other machines reach: the service has no login."""
    port: int
    bootstrap_servers: str
    topic: str
    dlt_topic: str
    retry_topic: str
    group_id: str
    start: Start
    """Where a group without committed offsets begins (KAFKA_AUTO_OFFSET_RESET)."""
    strategy: Strategy
    max_retries: int
    retry_backoff_ms: int
    retry_max_backoff_ms: int
    retry_multiplier: float
    retry_jitter: float
    servers_from: str = field(default="the default", compare=False)
    """Who said `bootstrap_servers`, for the log."""

    @classmethod
    def load(
        cls, environment: Mapping[str, str] | None = None, overrides: Mapping[str, str | None] | None = None
    ) -> Settings:
        """Read the environment; `overrides` (the command line) win over it. Raises WrongSettingError."""
        source = os.environ if environment is None else environment
        values = {key: value for key, value in source.items() if value != ""}
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        if SERVERS in given:
            values.pop(RELANCE_SERVERS, None)
        values |= given
        read = _Reader(values)

        servers, servers_from = read.servers()
        role = cast(Role, read.one_of("ORDERS_ROLE", "api", ("api", "consumer")))
        port = read.whole("SERVER_PORT", DEFAULT_PORTS[role], 0, 65535, "a port; 0 takes a free one")
        insecure_bind = read.one_of("SERVER_INSECURE_BIND", "false", ("true", "false")) == "true"
        backoff = read.whole("RETRY_BACKOFF_MS", 1000, 0, 86_400_000, "milliseconds")
        max_backoff = read.whole("RETRY_MAX_BACKOFF_MS", 300_000, 0, 86_400_000, "milliseconds")
        strategy = cast(
            Strategy,
            read.one_of(
                "RETRY_STRATEGY",
                "exponential-jitter",
                ("immediate", "fixed", "exponential", "exponential-jitter"),
            ),
        )
        if strategy.startswith("exponential") and max_backoff < backoff:  # the others have no longest wait
            raise WrongSettingError(
                "RETRY_MAX_BACKOFF_MS",
                str(max_backoff),
                f"must be at least RETRY_BACKOFF_MS, which is {backoff}",
            )
        settings = cls(
            role=role,
            instance=read.matching(
                "INSTANCE_NAME",
                _default_instance(role, port),
                _NAME,
                "1 to 100 letters, digits, dots, dashes or underscores",
            ),
            host=read.host("SERVER_HOST", "127.0.0.1", insecure_bind),
            insecure_bind=insecure_bind,
            port=port,
            bootstrap_servers=servers,
            servers_from=servers_from,
            topic=read.topic("KAFKA_TOPIC", "orders"),
            dlt_topic=read.topic("KAFKA_DLT_TOPIC", "orders.DLT"),
            retry_topic=read.topic("KAFKA_RETRY_TOPIC", "orders.retry"),
            group_id=read.matching(
                "KAFKA_GROUP_ID",
                "orders-consumer-group",
                _GROUP,
                "1 to 249 letters, digits, dots, dashes or underscores",
            ),
            start=START_OF[read.one_of("KAFKA_AUTO_OFFSET_RESET", "earliest", tuple(START_OF))],
            strategy=strategy,
            max_retries=read.whole("MAX_RETRIES", 3, 0, 100, "retries after the first try"),
            retry_backoff_ms=backoff,
            retry_max_backoff_ms=max_backoff,
            retry_multiplier=read.decimal("RETRY_MULTIPLIER", 2.0, 1.0, 100.0),
            retry_jitter=read.decimal("RETRY_JITTER", 0.2, 0.0, 1.0),
        )
        settings._check_topics_differ()
        try:
            settings.retry_policy()
        except SettingsError as error:
            # The policy knows rules that no single range above can say; it names its own field.
            raise WrongSettingError("RETRY_STRATEGY", settings.strategy, str(error)) from error
        return settings

    def _check_topics_differ(self) -> None:
        # A dead letter in its own source would come back for ever.
        seen: dict[str, str] = {}
        for key, topic in (
            ("KAFKA_TOPIC", self.topic),
            ("KAFKA_DLT_TOPIC", self.dlt_topic),
            ("KAFKA_RETRY_TOPIC", self.retry_topic),
        ):
            if topic in seen:
                raise WrongSettingError(
                    key, topic, f"must differ from {seen[topic]}, which is the same topic"
                )
            seen[topic] = key

    def retry_policy(self) -> RetryPolicy:
        """The policy that these settings describe: MAX_RETRIES retries are MAX_RETRIES + 1 attempts."""
        attempts = self.max_retries + 1
        if self.strategy == "immediate":
            return RetryPolicy.immediate(max_attempts=attempts)
        delay = self.retry_backoff_ms / 1000
        if self.strategy == "fixed":
            return RetryPolicy.fixed(max_attempts=attempts, delay=delay)
        return RetryPolicy.exponential(
            max_attempts=attempts,
            initial_delay=delay,
            max_delay=self.retry_max_backoff_ms / 1000,
            multiplier=self.retry_multiplier,
            jitter_factor=self.retry_jitter if self.strategy == "exponential-jitter" else 0.0,
        )


def _default_instance(role: str, port: int) -> str:
    # The host keeps scaled containers apart, which share role and port; the port keeps processes apart.
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:60] or "localhost"
    return f"{role}-{host}-{port}" if port else f"{role}-{host}-pid{os.getpid()}"


class _Reader:
    """Reads single values and says in one line what is wrong with one."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def one_of(self, key: str, default: str, allowed: Sequence[str]) -> str:
        value = self._values.get(key, default)
        if value not in allowed:
            raise WrongSettingError(key, value, f"must be one of {', '.join(allowed)}")
        return value

    def matching(self, key: str, default: str, pattern: re.Pattern[str], allowed: str) -> str:
        value = self._values.get(key, default)
        if not pattern.fullmatch(value):
            raise WrongSettingError(key, value, f"must be {allowed}")
        return value

    def topic(self, key: str, default: str) -> str:
        value = self.matching(
            key, default, _TOPIC, "a topic name: 1 to 249 letters, digits, dots, dashes or underscores"
        )
        if value in (".", ".."):
            raise WrongSettingError(key, value, "must be a topic name, which '.' and '..' are not")
        return value

    def host(self, key: str, default: str, insecure_bind: bool) -> str:
        value = self._values.get(key, default)
        try:
            found = socket.getaddrinfo(value, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise WrongSettingError(
                key, value, "must be an address of this machine, as 127.0.0.1 or 0.0.0.0"
            ) from error
        if not insecure_bind and not all(ipaddress.ip_address(each[4][0]).is_loopback for each in found):
            raise WrongSettingError(
                key,
                value,
                "can be reached from other machines, and the service has no login; put it behind a proxy that"
                " asks for one, or set SERVER_INSECURE_BIND=true",
            )
        return value

    def servers(self) -> tuple[str, str]:
        """The address of the cluster, and who said it: an App's order of precedence."""
        key = RELANCE_SERVERS if RELANCE_SERVERS in self._values else SERVERS
        value = self._values.get(key)
        if value is None:
            return self._servers_of_the_file()
        for server in value.split(","):
            found = _SERVER.fullmatch(server.strip())
            if found is None or not 1 <= int(found[2]) <= 65535:
                raise WrongSettingError(key, value, "must be host:port, or several with commas between them")
        return value, key

    def _servers_of_the_file(self) -> tuple[str, str]:
        path = self._values.get("RELANCE_CONFIG")
        try:
            found = relance.Settings.load(path, env={})
            return found.bootstrap_servers, found.servers_from
        except SettingsError as error:
            raise WrongSettingError("RELANCE_CONFIG", path, str(error)) from error

    def whole(self, key: str, default: int, low: int, high: int, unit: str) -> int:
        value = self._values.get(key)
        if value is None:
            return default
        if not _WHOLE.fullmatch(value) or not low <= int(value) <= high:
            raise WrongSettingError(key, value, f"must be a whole number from {low} to {high} ({unit})")
        return int(value)

    def decimal(self, key: str, default: float, low: float, high: float) -> float:
        value = self._values.get(key)
        if value is None:
            return default
        number = float(value) if _DECIMAL.fullmatch(value) else math.nan
        if not low <= number <= high:  # NaN fails this as well
            raise WrongSettingError(key, value, f"must be a number from {low:g} to {high:g}")
        return number
