"""`relance produce`: send records, each acknowledged by the broker before it is printed.

Promise: bytes arrive as they were given, whatever they are; a key lands in the partition where Java's
producers put it; what was not acknowledged is an error that says whether it may have been written.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import typer

from relance.cli.cluster import AsJson, Bootstrap, admin_for, print_json, settings_for
from relance.delivery import Delivery
from relance.errors import SendError, SettingsError
from relance.kafka.config import common_config
from relance.kafka.fitting import FittingProducer
from relance.kafka.limits import TopicLimits
from relance.text import is_unicode

__all__ = ["produce"]

WINDOW = 1000
"""Records on their way at a time: enough to fill batches, too few to fill the client's queue."""


class Outgoing(NamedTuple):
    """A record to be sent."""

    key: bytes | None
    value: bytes | None


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)],
    bootstrap: Bootstrap = None,
    key: Annotated[str | None, typer.Option("--key", "-k", help="The key of every record.")] = None,
    value: Annotated[str | None, typer.Option("--value", "-v", help="Send this one record.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="A record for each line; - is stdin.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The file is one record, byte for byte, line ends included.")
    ] = False,
    tombstone: Annotated[bool, typer.Option("--tombstone", help="Send a null value.")] = False,
    key_separator: Annotated[
        str | None,
        typer.Option("--key-separator", metavar="TEXT", help="Lines are KEY, TEXT, VALUE, or a value alone."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME=VALUE", help="A header; without = its value is null."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send records to a topic and print where they lie.

    Without --value, --file or --tombstone the records are the lines of stdin.
    """
    if sum((value is not None, file is not None, tombstone)) > 1:
        raise SettingsError("--value", "goes without --file and --tombstone: choose one")
    if key is not None and key_separator is not None:
        raise SettingsError("--key", "goes without --key-separator: choose one")
    if raw and key_separator is not None:
        raise SettingsError("--raw", "goes without --key-separator: the whole file is the value")
    if value is not None or tombstone:
        for option, said in (("--raw", raw), ("--key-separator", key_separator is not None)):
            if said:
                raise SettingsError(option, "is for what is read from --file or stdin")
    if key_separator == "":
        raise SettingsError("--key-separator", "must not be empty")
    headers = [_header(each) for each in header or ()]
    key_bytes = None if key is None else os.fsencode(key)
    settings = settings_for(bootstrap)
    # The client would try for seconds before it said what one question tells at once.
    admin = admin_for(settings)
    admin.watermarks(topic)
    if value is not None or tombstone:
        records = iter([Outgoing(key_bytes, None if value is None else os.fsencode(value))])
    else:
        separator = None if key_separator is None else os.fsencode(key_separator)
        records = _from_file(file, raw, key_bytes, separator)
    common = common_config(settings)
    limits = TopicLimits(common, [topic])
    limits.learn(admin)
    producer = FittingProducer(common, name="produce", timeout=settings.send_timeout, limits=limits)
    # At a terminal each line's answer is shown before the next line is typed.
    window = 1 if sys.stdin.isatty() else WINDOW
    answers = _Answers(topic, settings.send_timeout, as_json)
    try:
        for record in records:
            delivery = Delivery()
            producer.send(topic, record.value, key=record.key, headers=headers, answer=delivery.answer)
            answers.waiting.append(delivery)
            while len(answers.waiting) >= window:
                answers.tell_next()
            if answers.errors:
                break  # what is on its way is awaited; nothing more is sent
        producer.flush(settings.send_timeout)
    finally:
        # Also after an interrupt: what was acknowledged is told.
        while answers.waiting:
            answers.tell_next()
        producer.close(1.0)
    answers.conclude()


class _Answers:
    """The records on their way, in order, and what became of those before."""

    def __init__(self, topic: str, timeout: float, as_json: bool) -> None:
        self.waiting: deque[Delivery] = deque()
        self.errors: list[SendError] = []
        self._sent = 0
        self._topic = topic
        self._timeout = timeout
        self._as_json = as_json

    def tell_next(self) -> None:
        """Wait for the oldest, and print where it lies."""
        try:
            # The producer gives up by itself; the seconds more are for its own hand-over.
            at = self.waiting.popleft().result(self._timeout + 5.0)
        except TimeoutError:
            text = f"{self._topic}: no acknowledgement within {self._timeout:g} s"
            self.errors.append(SendError(text, maybe_written=True))
        except SendError as error:
            self.errors.append(error)
        else:
            self._sent += 1
            if self._as_json:
                print_json({"topic": at.topic, "partition": at.partition, "offset": at.offset})
            else:
                offset = "unknown" if at.offset < 0 else at.offset
                sys.stdout.write(f"{at.topic}  partition {at.partition}  offset {offset}\n")

    def conclude(self) -> None:
        """Raise what went wrong, with the numbers where it wasn't a single record."""
        if self.errors:
            if self._sent or len(self.errors) > 1:
                typer.echo(f"{self._sent} acknowledged, {len(self.errors)} not", err=True)
            raise self.errors[0]
        if not self._sent:
            typer.echo("nothing was sent: the input is empty", err=True)


def _from_file(
    file: Path | None, raw: bool, key: bytes | None, separator: bytes | None
) -> Iterator[Outgoing]:
    with _opened(file) as stream:
        if raw:
            yield Outgoing(key, stream.read())
            return
        for line in stream:
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            if separator is None:
                yield Outgoing(key, text)
            else:
                before, found, after = text.partition(separator)
                yield Outgoing(before, after) if found else Outgoing(None, text)


def _opened(file: Path | None) -> nullcontext[BinaryIO] | BinaryIO:
    if file is None or str(file) == "-":
        if sys.stdin.isatty():
            typer.echo("reading records from the keyboard, one a line; end with Ctrl-D", err=True)
        return nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        raise SettingsError("--file", f"cannot be read: {file}: {error.strerror}") from error


def _header(text: str) -> tuple[str, bytes | None]:
    name, equals, value = text.partition("=")
    if not name or not is_unicode(name):
        raise SettingsError("--header", "must be NAME=VALUE, or NAME alone for a null value; a name is UTF-8")
    return name, os.fsencode(value) if equals else None
