"""`relance broker`: a local Apache Kafka for development and tests.

Promise: `start` ends with a Kafka that answers at the address it prints, or with one line that names what is
missing; said again it changes nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from relance.broker import LocalBroker, Status
from relance.errors import SettingsError

__all__ = ["app"]

app = typer.Typer(help="Start and stop a local Apache Kafka for development.", no_args_is_help=True)

Dir = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where data and logs are kept.")]
Port = Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="The first node's port.")]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap", metavar="HOST:PORT", help="Instead of --port: the address to serve, or to use."
    ),
]
_RUN = Path(".run")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _port(port: int, bootstrap: str | None) -> int:
    if bootstrap is None:
        return port
    host, _, number = bootstrap.rpartition(":")
    if host not in ("localhost", "127.0.0.1") or not number.isdigit():
        raise SettingsError("--bootstrap", f"a local broker serves localhost:PORT, not {bootstrap!r}")
    return int(number)


def _settings(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise SettingsError("--config", f"takes KEY=VALUE, not {pair!r}")
        found[key] = value
    return found


@app.command()
def start(
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=9, help="How many nodes.")] = 1,
    port: Port = 9092,
    bootstrap: Bootstrap = None,
    dir: Dir = _RUN,
    config: Annotated[
        list[str] | None, typer.Option("--config", metavar="KEY=VALUE", help="A Kafka setting; repeatable.")
    ] = None,
    heap_mb: Annotated[int, typer.Option("--heap-mb", min=128, help="Java's heap for each node.")] = 512,
) -> None:
    """Start it, and return when it answers. A Kafka that already answers there is used as it is."""
    broker = LocalBroker(
        dir, port=_port(port, bootstrap), nodes=nodes, config=_settings(config), heap_mb=heap_mb, say=_say
    )
    _show(broker.start())


@app.command()
def stop(
    port: Port = 9092,
    dir: Dir = _RUN,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its data and logs, too.")] = False,
) -> None:
    """Stop it."""
    broker = LocalBroker(dir, port=port, say=_say)
    if purge:
        broker.purge()
        typer.echo(f"no broker runs from {dir}, and its data is gone")
        return
    status = broker.stop()
    if status.foreign:
        typer.echo(f"the Kafka at {status.bootstrap} was not started from {dir}; it goes on")
    else:
        typer.echo(f"no broker runs from {dir}")


@app.command()
def status(port: Port = 9092, dir: Dir = _RUN) -> None:
    """Say what runs; exit status 0 if it answers, 3 if not (as init scripts have it)."""
    found = LocalBroker(dir, port=port).status()
    _show(found)
    if not found.running:
        raise typer.Exit(3)


def _show(found: Status) -> None:
    if found.foreign:
        typer.echo(f"{found.bootstrap}: a Kafka that was not started from here")
    elif not found.nodes:
        typer.echo(f"{found.bootstrap}: no broker")
    for node in found.nodes:
        state = "answers" if node.answers else ("starting, or stuck" if node.up else "not running")
        pid = f" (pid {node.pid})" if node.pid is not None else ""
        typer.echo(f"localhost:{node.port}: node {node.id} {state}{pid}; log {node.log}")
