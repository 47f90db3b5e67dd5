"""All settings of an app as one checked object, from code, environment and a TOML file, under the same names.

Promise: what `Settings` holds can be meant. A wrong, unknown or contradicting setting raises SettingsError,
which names it as the user wrote it, before anything starts. Later sources lose: code, then the environment
(RELANCE_BOOTSTRAP_SERVERS), then the file ([relance] bootstrap_servers = "..."), then the default. Below
RELANCE_BOOTSTRAP_SERVERS, and above the file, stands KAFKA_BOOTSTRAP_SERVERS, which other programs read, too.

Raw librdkafka settings are the `client` table: `client = {...}` in code, [relance.client] in the file,
RELANCE_CLIENT_SECURITY_PROTOCOL for security.protocol in the environment. `relance.client_settings` says
which of them may come from where.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from relance.client_settings import SECRETS, ClientSettings, check_foreign, check_own, read_reference
from relance.environment import Problems, Setting
from relance.errors import SettingsError

__all__ = ["Settings", "check_setting"]

PREFIX: Final = "RELANCE_"
CLIENT_PREFIX: Final = "RELANCE_CLIENT_"
CONFIG_VARIABLE: Final = "RELANCE_CONFIG"
SHARED_SERVERS: Final = "KAFKA_BOOTSTRAP_SERVERS"

_DEFAULT_SERVERS: Final = "localhost:9092"
_PORT: Final = re.compile("[1-9][0-9]{0,4}")

Assignor = Literal["cooperative-sticky", "range", "roundrobin"]
Start = Literal["earliest", "latest", "fail"]
EventLoop = Literal["auto", "asyncio", "uvloop"]


_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
"""What may stand before an address: the client's own way to say security.protocol for one broker."""


def _servers(key: str, value: str) -> str:
    if "@" in value:  # and is not quoted: what stands before it may be a password
        raise SettingsError(
            key, "must be host:port without a user: sign in with sasl.username and sasl.password"
        )
    for server in value.split(","):
        host, colon, port = server.strip().rpartition(":")
        scheme, is_url, _ = host.rpartition("://")
        if is_url and scheme.upper() not in _PROTOCOLS:
            problem = f"must be host:port, without {scheme[:20]}://, not {value[:100]!r}"
            raise SettingsError(key, problem)
        if not colon or not host or " " in host or not _PORT.fullmatch(port) or int(port) > 65_535:
            problem = f"must be host:port, or several with commas between, not {value[:100]!r}"
            raise SettingsError(key, problem)
    return ",".join(server.strip() for server in value.split(","))


def _assignor(key: str, value: str) -> str:
    if value == "sticky":
        problem = (
            "librdkafka has no eager sticky assignor; use cooperative-sticky, which is sticky too, or"
            " group.protocol=consumer, whose uniform assignor is"
        )
        raise SettingsError(key, problem)
    return value


def _event_loop(key: str, value: str) -> str:
    if value == "uvloop" and find_spec("uvloop") is None:
        raise SettingsError(key, "uvloop is not installed; pip install 'relance[uvloop]', or say auto")
    return value


def _level(key: str, value: str) -> str:
    return value.upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, checked. Build it in code, or with `Settings.load`."""

    group: str | None = None
    """The consumer group. Its retry client uses `<group>.retry`."""

    bootstrap_servers: str = _DEFAULT_SERVERS
    """Where to find the cluster first: host:port, comma, host:port."""

    commit_interval: float = 1.0
    """How often finished offsets are committed, in seconds. A crash repeats at most what finished since."""

    drain_timeout: float = 8.0
    """How long a stop or a revocation waits for running handlers, in seconds, all told. Below a third of
    `max_poll_interval`, because a revocation waits inside the client's poll."""

    session_timeout: float = 10.0
    """After how many seconds without a heartbeat the group gives a member's partitions to others."""

    heartbeat_interval: float = 3.0
    """Seconds between heartbeats; at most a third of `session_timeout`, as Kafka's documentation advises."""

    max_poll_interval: float = 300.0
    """Seconds after which a client that doesn't poll is out of the group. Handlers don't count: the poller
    has a thread of its own."""

    send_timeout: float = 10.0
    """How long a write waits for its acknowledgement, in seconds, all retries of the client included."""

    start_timeout: float = 30.0
    """How long a start tries to reach a broker, in seconds, before it gives up."""

    create_topics: bool = False
    """Whether a topic that is missing at start is made, with the broker's default partitions."""

    max_buffered_records: int | None = None
    """At how many records in memory the intake pauses. By default 2,500, or 32 for each record that a
    consumer may handle at once if that is more: neighbours in a log often share a key."""

    max_buffered_bytes: int = 64 * 1024 * 1024
    """At how many bytes of values in memory the intake pauses. Records that wait for a retry may take twice
    as much again; a partition that holds its share of that is paused."""

    assignor: Assignor = "cooperative-sticky"
    """Which assignor shares out the partitions, under the classic group protocol."""

    start: Start = "earliest"
    """Where a group without a committed offset starts in a partition; `fail` stops instead."""

    on_out_of_range: Start = "fail"
    """What to do when a committed offset is no longer in the log."""

    event_loop: EventLoop = "auto"
    """On which loop `App.run` runs async handlers: uvloop where it is installed (`relance[uvloop]`), else
    asyncio's own. An app inside a loop of yours (`async with app.running()`) uses that one."""

    share_core: bool = False
    """Whether, while there is a backlog, the polling thread and the handler's are kept on one core (Linux;
    `App.run` with one consumer, whose handler is async, or sync with concurrency 1): a handler of a few
    microseconds gains a fifth. What it starts meanwhile, threads and processes, stays on that core, too."""

    hang_warning: float = 60.0
    """After how many seconds at one record (or batch) a handler, or a hook at one event, is a warning in the
    log, once for each; 0: never."""

    log_level: str = "INFO"
    """The level of the `relance` loggers."""

    client: Mapping[str, Any] = field(default_factory=ClientSettings, hash=False)
    """Raw librdkafka settings, for all clients of the app. The timeouts above, given here by their
    librdkafka names, set the fields."""

    servers_from: str = field(default="", repr=False, compare=False)
    """Who said `bootstrap_servers`, for the log: a variable, a file, code, or the default."""

    def __post_init__(self) -> None:
        problems = Problems()
        put = object.__setattr__
        if not self.servers_from:
            is_default = self.bootstrap_servers == _DEFAULT_SERVERS
            put(self, "servers_from", "the default" if is_default else "Settings(bootstrap_servers=...)")
        put(self, "client", problems.attempt(self._checked_client) or ClientSettings())
        for name, setting in _SETTINGS.items():
            value = getattr(self, name)
            put(self, name, problems.attempt(setting.check, name, value))
        problems.raise_if_any()
        for rule in (self._check_drain, self._check_heartbeat, self._check_session):
            problems.attempt(rule)
        problems.raise_if_any()

    def _checked_client(self) -> ClientSettings:
        if not isinstance(self.client, Mapping):
            raise SettingsError(
                "client", f"must be a dict of librdkafka settings, not {type(self.client).__name__}"
            )
        client: dict[str, Any] = {}
        for key, value in self.client.items():
            check_own(key)
            name = _TIMEOUTS.get(key)
            if name is None:
                client[key] = value
                continue
            # One value, one place: the rules between the timeouts must see what the client will really use.
            milliseconds = Setting(int, low=0).parse(f"client.{key}", str(value))
            object.__setattr__(self, name, milliseconds / 1000)
        return ClientSettings(client)

    def _check_drain(self) -> None:
        if self.drain_timeout >= self.max_poll_interval / 3:
            problem = (
                f"{self.drain_timeout:g} must be below a third of max_poll_interval"
                f" ({self.max_poll_interval:g}): nobody polls while a revocation drains;"
                f" lower it, or raise that"
            )
            raise SettingsError("drain_timeout", problem)

    def _check_heartbeat(self) -> None:
        if self.heartbeat_interval > self.session_timeout / 3:
            problem = (
                f"{self.heartbeat_interval:g} must be at most a third of session_timeout"
                f" ({self.session_timeout:g}), so that two may be lost; lower it, or raise that"
            )
            raise SettingsError("heartbeat_interval", problem)

    def _check_session(self) -> None:
        if self.session_timeout > self.max_poll_interval:
            problem = (
                f"{self.session_timeout:g} must not be above max_poll_interval ({self.max_poll_interval:g})"
            )
            raise SettingsError("session_timeout", problem)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Settings:
        """Settings from a TOML file, the environment and code, the later winning.

        `path` is the file; without it, the one that RELANCE_CONFIG names, or none. `env` is the process's
        environment if it isn't given; a variable that is empty counts as not set. An override that is None
        counts as not given; `servers_from` tells the log who said an overriding `bootstrap_servers`. Raises
        one SettingsError that tells every problem.
        """
        source = os.environ if env is None else env
        servers_from = overrides.pop("servers_from", "Settings.load(bootstrap_servers=...)")
        problems = Problems()
        file = path if path is not None else source.get(CONFIG_VARIABLE) or None
        values: dict[str, Any] = {}
        client: dict[str, Any] = {}
        if file is not None:
            table = problems.attempt(_read_toml, Path(file)) or {}
            _take_toml(table, Path(file), values, client, problems)
        in_file = "bootstrap_servers" in values
        _take_env(source, values, client, problems)
        if overrides.get("bootstrap_servers") is None:
            servers_from = _take_shared_servers(source, values, problems) or (str(file) if in_file else "")
        for name, value in overrides.items():
            if name == "client":
                client = _merged(client, value, problems)
            elif name not in _SETTINGS:
                problems.attempt(_unknown, name, name, "setting")
            elif value is not None:
                values[name] = value
        problems.raise_if_any()
        return cls(**values, client=client, servers_from=servers_from)


_SETTINGS: Final[dict[str, Setting]] = {
    "group": Setting(str, optional=True, example="orders-consumer-group"),
    "bootstrap_servers": Setting(str, also=_servers),
    "commit_interval": Setting(float, low=0.01, high=3600.0, unit="seconds"),
    "drain_timeout": Setting(float, low=0.0, high=3600.0, unit="seconds"),
    "session_timeout": Setting(float, low=0.1, high=86_400.0, unit="seconds"),
    "heartbeat_interval": Setting(float, low=0.01, high=86_400.0, unit="seconds"),
    "max_poll_interval": Setting(float, low=1.0, high=86_400.0, unit="seconds"),
    "send_timeout": Setting(float, low=0.1, high=3600.0, unit="seconds"),
    "start_timeout": Setting(float, low=0.0, high=86_400.0, unit="seconds"),
    "create_topics": Setting(bool),
    "max_buffered_records": Setting(int, low=1, high=100_000_000, optional=True),
    "max_buffered_bytes": Setting(int, low=1024, high=2**40),
    "assignor": Setting(str, choices=("cooperative-sticky", "range", "roundrobin"), also=_assignor),
    "start": Setting(str, choices=("earliest", "latest", "fail")),
    "on_out_of_range": Setting(str, choices=("fail", "earliest", "latest")),
    "event_loop": Setting(str, choices=("auto", "asyncio", "uvloop"), also=_event_loop),
    "share_core": Setting(bool),
    "hang_warning": Setting(float, low=0.0, high=86_400.0, unit="seconds"),
    "log_level": Setting(str, choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), also=_level),
}
"""What each may be, by name; the defaults stand in the class."""

_TIMEOUTS: Final = {
    "session.timeout.ms": "session_timeout",
    "heartbeat.interval.ms": "heartbeat_interval",
    "max.poll.interval.ms": "max_poll_interval",
    "message.timeout.ms": "send_timeout",
    "delivery.timeout.ms": "send_timeout",
}


def check_setting(name: str, value: object, written: str | None = None) -> Any:
    """`value`, if the setting `name` may have it; for a parameter or option (`written`) that repeats one.

    Raises SettingsError.
    """
    return _SETTINGS[name].check(written or name, value)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise SettingsError(str(path), f"is not TOML: {reason}") from error
    table = document.get("relance")
    if not isinstance(table, dict):
        raise SettingsError(str(path), "has no [relance] table")
    return table


def _take_toml(
    table: Mapping[str, Any], path: Path, values: dict[str, Any], client: dict[str, Any], problems: Problems
) -> None:
    for name, value in table.items():
        if name == "client" and isinstance(value, dict):
            for key, raw in _flat(value):
                problems.attempt(_foreign, key, raw, "settings file", f"{path}: client.{key}")
                client[key] = raw
        elif name in _SETTINGS:
            values[name] = problems.attempt(_SETTINGS[name].check, f"{path}: {name}", value)
        else:
            problems.attempt(_unknown, f"{path}: {name}", name, "setting")


def _flat(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    # In TOML an unquoted security.protocol is a table in a table, and there may be very many in each other.
    found: list[tuple[str, Any]] = []
    waiting = list(table.items())[::-1]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{name}.{inner}", v) for inner, v in list(value.items())[::-1]]
        else:
            found.append((name, value))
    return found


def _merged(client: dict[str, Any], given: object, problems: Problems) -> dict[str, Any]:
    if given is None:
        return client
    if not isinstance(given, Mapping):
        what = type(given).__name__
        problems.attempt(_refuse, "client", f"must be a dict of librdkafka settings, not {what}")
        return client
    return {**client, **given}


def _take_env(
    env: Mapping[str, str], values: dict[str, Any], client: dict[str, Any], problems: Problems
) -> None:
    for variable, text in sorted(env.items()):
        if not variable.startswith(PREFIX) or not text or variable == CONFIG_VARIABLE:
            continue
        if variable.startswith(CLIENT_PREFIX):
            _take_client_variable(variable, text, env, client, problems)
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in _SETTINGS:
            values[name] = problems.attempt(_SETTINGS[name].parse, variable, text)
        elif difflib.get_close_matches(name, _SETTINGS, n=1, cutoff=0.75):
            # Only what looks like a slip: the prefix is not ours alone. A Kubernetes service called relance
            # puts RELANCE_PORT into every pod of its namespace.
            problems.attempt(_unknown, variable, name, "variable")


def _take_shared_servers(env: Mapping[str, str], values: dict[str, Any], problems: Problems) -> str:
    """The variable that says where the cluster is, or ""."""
    own = f"{PREFIX}BOOTSTRAP_SERVERS"
    if env.get(own):
        return own
    text = env.get(SHARED_SERVERS)
    if not text:
        return ""
    check = _SETTINGS["bootstrap_servers"].parse
    values["bootstrap_servers"] = problems.attempt(check, SHARED_SERVERS, text)
    return SHARED_SERVERS


def _take_client_variable(
    variable: str, text: str, env: Mapping[str, str], client: dict[str, Any], problems: Problems
) -> None:
    key = variable.removeprefix(CLIENT_PREFIX).lower().replace("_", ".")
    secret = key.removesuffix(".file")
    if key != secret and secret in SECRETS:
        if env.get(variable.removesuffix("_FILE")):
            problem = f"is set, and {variable.removesuffix('_FILE')} too; set one of them"
            problems.attempt(_refuse, variable, problem)
        client[secret] = problems.attempt(read_reference, variable, text)
        return
    problems.attempt(_foreign, key, text, "environment", variable)
    client[key] = text


def _foreign(key: str, value: object, origin: str, written: str) -> None:
    if key in _TIMEOUTS:
        _refuse(written, f"say {_TIMEOUTS[key]}, in seconds")
    check_foreign(key, value, origin=origin, name=written)


def _unknown(written: str, name: str, what: str) -> None:
    near = difflib.get_close_matches(name, [*_SETTINGS, "client"], n=1)
    known = PREFIX + near[0].upper() if near and what == "variable" else "".join(near)
    _refuse(written, f"is no {what} of relance" + (f"; did you mean {known}?" if known else ""))


def _refuse(written: str, problem: str) -> None:
    raise SettingsError(written, problem)
