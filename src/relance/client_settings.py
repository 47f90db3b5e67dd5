"""Raw librdkafka settings: who may set what, and no secret in a log.

Promise: a file, an environment variable or a command line cannot make the client load code, run a command,
read a file, reach out to a URL or replace the cluster: from there only the settings of an allow-list are
taken. Secrets come from the environment, or from a file it names, and are never printed. Python code may set
what it likes, except what would break a promise of relance.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from relance.errors import SettingsError

__all__ = [
    "ALLOWED",
    "SECRETS",
    "ClientSettings",
    "check_foreign",
    "check_own",
    "is_secret",
    "read_reference",
]

SECRETS: Final = frozenset(
    {"sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"}
)
"""Taken from the environment only: as it is, or as the name of a file (`..._FILE`)."""

# fmt: off
ALLOWED: Final = SECRETS | frozenset({
    "batch.num.messages", "batch.size", "broker.address.family", "broker.address.ttl", "check.crcs",
    "client.dns.lookup", "client.id", "client.rack", "compression.codec", "compression.level",
    "compression.type", "connections.max.idle.ms", "debug", "fetch.error.backoff.ms", "fetch.max.bytes",
    "fetch.message.max.bytes", "fetch.min.bytes", "fetch.queue.backoff.ms", "fetch.wait.max.ms",
    "group.instance.id", "group.protocol", "group.remote.assignor", "isolation.level", "linger.ms",
    "log.connection.close", "max.in.flight.requests.per.connection", "max.partition.fetch.bytes",
    "message.max.bytes", "metadata.max.age.ms", "queue.buffering.max.kbytes",
    "queue.buffering.max.messages", "queue.buffering.max.ms", "queued.max.messages.kbytes",
    "queued.min.messages", "receive.message.max.bytes", "reconnect.backoff.max.ms",
    "reconnect.backoff.ms", "request.timeout.ms", "retry.backoff.max.ms", "retry.backoff.ms",
    "sasl.mechanism", "sasl.mechanisms", "sasl.oauthbearer.client.id", "sasl.oauthbearer.scope",
    "sasl.username", "security.protocol", "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable", "socket.nagle.disable", "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes", "socket.timeout.ms", "ssl.ca.pem", "ssl.certificate.pem",
    "statistics.interval.ms", "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
})
"""What a file, the environment or the command line may set: tuning, and how to sign in."""
# fmt: on

# Whether by malice or by mistake, a settings file that reaches these reaches the machine.
_DANGERS: Final = (
    ("plugin.library", "loads code into the process"),
    ("kinit.cmd", "runs a command"),
    (".location", "makes the client read a file"),
    (".providers", "loads code into the process"),
    ("engine.id", "loads code into the process"),
    ("url", "makes the client reach out to an address"),
    ("test.mock", "replaces the cluster by a mock"),
    ("proxy", "sends the traffic elsewhere"),
    ("certificate.verification", "switches off a check of who the broker is"),
    ("identification.algorithm", "switches off a check of who the broker is"),
)

_OWN: Final = {
    "bootstrap.servers": "say bootstrap_servers",
    "metadata.broker.list": "say bootstrap_servers",
    "group.id": "say group",
    "auto.offset.reset": "say start and on_out_of_range",
    "partition.assignment.strategy": "say assignor",
    "enable.auto.commit": "relance commits by itself, up to the lowest unfinished offset",
    "enable.auto.offset.store": "relance commits by itself, up to the lowest unfinished offset",
    "enable.partition.eof": "relance needs it to pass transaction markers",
    "enable.idempotence": "retries and dead letters would lose their order or be written twice",
    "transactional.id": "relance has one committer, and gives it its id",
}
_CALLBACKS: Final = frozenset(
    {"on_delivery", "on_commit", "error_cb", "stats_cb", "throttle_cb", "log_cb", "logger"}
)
_SECRET_WORDS: Final = (
    "password",
    "passphrase",
    "secret",
    "token",
    "private",
    "key.pem",
    "oauthbearer.config",
)
_HIDDEN: Final = "'***'"
_LARGEST_FILE: Final = 64 * 1024


class ClientSettings(Mapping[str, Any]):
    """A read-only dict of librdkafka settings that prints its secrets as ***."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        shown = (f"{k!r}: {_HIDDEN if is_secret(k) else repr(v)}" for k, v in sorted(self._values.items()))
        return f"{{{', '.join(shown)}}}"


def is_secret(key: str) -> bool:
    """Whether the value of a librdkafka setting must not be shown."""
    return key in SECRETS or any(word in key for word in _SECRET_WORDS)


def check_own(key: str) -> None:
    """Refuse a setting on which a promise of relance rests, wherever it comes from. Raises SettingsError."""
    if key in _OWN:
        raise SettingsError(f"client.{key}", f"is relance's own: {_OWN[key]}")
    if key in _CALLBACKS:
        problem = "is relance's own: a callback that raises inside the client loses records"
        raise SettingsError(f"client.{key}", problem)


def check_foreign(key: str, value: object, *, origin: str, name: str | None = None) -> None:
    """Refuse what only Python code may set. Raises SettingsError; `name` is the key as the user wrote it.

    `origin` is "environment", or where else it was written: secrets are taken from the environment alone.
    """
    name = name or f"client.{key}"
    check_own(key)
    if key in SECRETS and origin != "environment":
        variable = "RELANCE_CLIENT_" + key.upper().replace(".", "_")
        problem = (
            f"is a secret, which a {origin} would show to whoever reads it; set {variable}, or"
            f" {variable}_FILE to the path of a file that holds it"
        )
        raise SettingsError(name, problem)
    if key not in ALLOWED:
        raise SettingsError(name, _why_not(key, origin))
    if not isinstance(value, str | int | float | bool):
        raise SettingsError(name, f"must be a string, a number, true or false, not {type(value).__name__}")


def _why_not(key: str, origin: str) -> str:
    for word, what in _DANGERS:
        if word in key:
            return f"{what}, so it may be set from Python code only: App(client={{{key!r}: ...}})"
    near = difflib.get_close_matches(key, ALLOWED, n=1)
    meant = f"did you mean {near[0]}?" if near else f"set it from Python code: App(client={{{key!r}: ...}})"
    return f"is not a librdkafka setting that may come from the {origin}; {meant}"


def read_reference(name: str, path: str) -> str:
    """The secret in a file, without the line end; `name` is the variable. Raises SettingsError."""
    file = Path(path)
    try:
        if not file.is_file():
            raise SettingsError(name, f"there is no file {path}")
        if file.stat().st_size > _LARGEST_FILE:
            raise SettingsError(name, f"{path} is larger than {_LARGEST_FILE} bytes; that is no secret")
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        # A UnicodeDecodeError quotes what it could not decode, so it stays out of the message and the chain.
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(name, f"cannot read {path}: {reason}") from None
    if not secret:
        raise SettingsError(name, f"{path} is empty")
    return secret
