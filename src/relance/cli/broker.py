"""`relance broker`: a local Apache Kafka for development and tests.

Promise: `start` ends with a Kafka that answers at the address it prints, or with one line that names what is
missing and nothing left running; said again it changes nothing.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from relance.broker import KAFKA_VERSION, LocalBroker, Status, kafka_home
from relance.broker.jars import Say, ensure_jars
from relance.broker.probe import Answer, ask
from relance.cli.options import config_of
from relance.errors import RelanceError, SettingsError
from relance.ports import LOOPBACK_NAMES, holder_of

__all__ = ["app"]

app = typer.Typer(
    help="Start and stop a local Apache Kafka for development.", no_args_is_help=True, add_completion=False
)

Dir = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where data and logs are kept.")]
Port = Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="The first node's port.")]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap", "-b", metavar="HOST:PORT", help="Instead of --port: the address to serve, or to use."
    ),
]
_RUN = Path(".run")
_QUIET = 5.0  # seconds between two lines of one kind where there is no terminal


@app.command()
def start(
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", min=1, max=9, help="How many nodes.  [default: 1]", show_default=False),
    ] = None,
    port: Port = 9092,
    bootstrap: Bootstrap = None,
    dir: Dir = _RUN,
    config: Annotated[
        list[str] | None, typer.Option("--config", metavar="NAME=VALUE", help="A Kafka setting; repeatable.")
    ] = None,
    heap_mb: Annotated[int, typer.Option("--heap-mb", min=128, help="Java's heap for each node.")] = 512,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long Kafka may take to come up.")
    ] = 60.0,
    own: Annotated[
        bool, typer.Option("--own", help="Refuse a Kafka that answers there and was not started from DIR.")
    ] = False,
) -> None:
    """Start it, and return when it answers. A Kafka that already answers there is used as it is.

    The process that it belongs to is named; with --own it is refused. The first time Kafka is downloaded, by
    Maven. Where Java or Maven is missing, Docker runs it.
    """
    host, port = _address(port, bootstrap)
    if host not in LOOPBACK_NAMES:
        if own:
            raise SettingsError("--own", f"means a Kafka on this machine, and {host} is not: --port PORT")
        if ask(host, port) is not Answer.KAFKA:
            raise RelanceError(
                f"no Kafka answers at {host}:{port}; it can only be started on this machine: --port PORT"
            )
        typer.echo(f"{host}:{port}: a Kafka that was not started from here")
        return
    if own and (found := LocalBroker(dir, port=port).status()).foreign:
        raise RelanceError(
            f"at {found.bootstrap} answers a Kafka that was not started from {dir}: {holder_of(port)};"
            " stop it, or take another --port"
        )
    with _progress() as say, _signals_stop():
        settings = config_of(config) or None
        broker = LocalBroker(dir, port=port, nodes=nodes, config=settings, heap_mb=heap_mb, say=say)
        found = broker.start(timeout)
    _show(found)
    if found.foreign:
        typer.echo(
            f"it belongs to {holder_of(port)}, and is used as it is, with the topics and records in it;"
            " --own refuses that, --port starts one beside it",
            err=True,
        )


@app.command()
def stop(
    port: Port = 9092,
    dir: Dir = _RUN,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its data and logs, too.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="After these it is killed.")
    ] = 20.0,
) -> None:
    """Stop it. A Kafka that was not started from this directory is left alone."""
    with _progress() as say:
        broker = LocalBroker(dir, port=port, say=say)
        ran = any(node.up for node in broker.status().nodes)
        if purge:
            broker.purge()
        else:
            found = broker.stop(timeout)
    if purge:
        typer.echo(f"{'stopped the broker of' if ran else 'no broker ran from'} {dir}, and its data is gone")
    elif found.foreign:
        typer.echo(f"the Kafka at {found.bootstrap} was not started from {dir}; it goes on")
    else:
        typer.echo(f"{'stopped the broker of' if ran else 'no broker runs from'} {dir}")


@app.command()
def status(port: Port = 9092, bootstrap: Bootstrap = None, dir: Dir = _RUN) -> None:
    """Say what runs; exit status 0 if it answers, 3 if not (as init scripts have it)."""
    host, port = _address(port, bootstrap)
    found = LocalBroker(dir, port=port).status()
    asked_elsewhere = bootstrap is not None and port not in {node.port for node in found.nodes}
    if host not in LOOPBACK_NAMES or asked_elsewhere:
        answers = ask(host, port) is Answer.KAFKA
        what = "a Kafka that was not started from here" if answers else "no broker"
        typer.echo(f"{host}:{port}: {what}")
        raise typer.Exit(0 if answers else 3)
    _show(found)
    if not found.running:
        raise typer.Exit(3)


@app.command()
def fetch() -> None:
    """Download Kafka, and start nothing."""
    with _progress() as say, _signals_stop():
        libs = ensure_jars(kafka_home(), say)
    typer.echo(f"Kafka {KAFKA_VERSION} is in {libs}")


def _address(port: int, bootstrap: str | None) -> tuple[str, int]:
    """Host and port; of a list of addresses, the first."""
    if bootstrap is None:
        return "localhost", port
    host, _, number = bootstrap.partition(",")[0].strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not number.isdecimal() or not 0 < int(number) < 65536:
        raise SettingsError("--bootstrap", f"must be HOST:PORT, not {bootstrap!r}")
    return host, int(number)


def _show(found: Status) -> None:
    if found.foreign:
        typer.echo(f"{found.bootstrap}: a Kafka that was not started from here")
        return
    if not found.nodes:
        typer.echo(f"{found.bootstrap}: no broker")
    for node in found.nodes:
        state = "answers" if node.answers else ("starting, or stuck" if node.up else "not running")
        pid = f" (pid {node.pid})" if node.pid is not None else ""
        log = f"docker logs {found.container}" if found.container else f"log {node.log}"
        typer.echo(f"localhost:{node.port}: node {node.id} {state}{pid}; {log}")


@contextlib.contextmanager
def _progress() -> Iterator[Say]:
    """What takes a while, on stderr: as one moving line on a terminal, as few plain lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        with Console(stderr=True).status("…") as spinner:
            yield lambda line: spinner.update(escape(line))
        return
    last, when = "", 0.0

    def say(line: str) -> None:
        nonlocal last, when
        # "downloading …: 7 files" is printed once, and then every few seconds.
        kind, now = line.partition(": ")[0], time.monotonic()
        if kind != last or now - when >= _QUIET:
            last, when = kind, now
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    yield say


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end this as Ctrl-C does: by way of everyone's cleaning up."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before: dict[signal.Signals, Any] = {
        one: signal.signal(one, leave) for one in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
