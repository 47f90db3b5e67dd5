"""`relance console`: the web console, on this machine alone unless told otherwise.

Promise: it says where to look and answers there, also while the broker is away; a port that is taken, or a
bind that would show records to strangers, is one clear line.
"""

from __future__ import annotations

from typing import Annotated

import typer

from relance.cli.cluster import Bootstrap, settings_for
from relance.errors import RelanceError
from relance.kafka.config import common_config

__all__ = ["console"]


def console(
    bootstrap: Bootstrap = None,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    insecure_bind: Annotated[
        bool,
        typer.Option(
            "--insecure-bind",
            help="Listen on an address that other machines reach, though the console has no login.",
        ),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another name under which it may be opened."),
    ] = None,
) -> None:
    """Show topics, records, groups and lag in a browser. Read-only."""
    settings = settings_for(bootstrap)
    try:
        from relance.console.server import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("starlette", "jinja2", "uvicorn"):
            raise
        raise RelanceError(
            f"the console needs {error.name}, which is not installed: pip install 'relance[console]'"
        ) from error

    def ready(url: str) -> None:
        typer.echo(f"relance console: {url}   (cluster {settings.bootstrap_servers}; Ctrl-C stops)")

    serve(
        settings.bootstrap_servers,
        common_config(settings),
        host=host,
        port=port,
        insecure_bind=insecure_bind,
        allow_hosts=allow_host or (),
        ready=ready,
    )
