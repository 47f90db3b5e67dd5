"""What the commands that talk to a cluster share: where it is, and how they print.

Promise: settings come from the option, the environment and RELANCE_CONFIG's file as everywhere in relance;
what comes out of Kafka is printed without terminal escapes; `--json` is one JSON document, or one a line.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relance.kafka.admin import Admin
from relance.kafka.config import common_config
from relance.settings import Settings

__all__ = ["AsJson", "Bootstrap", "admin_for", "print_json", "print_table", "settings_for"]

Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap",
        "--bootstrap-server",
        "-b",
        metavar="HOST:PORT",
        help="Where to find the cluster; else RELANCE_BOOTSTRAP_SERVERS or KAFKA_BOOTSTRAP_SERVERS says it. "
        " [default: localhost:9092]",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def settings_for(bootstrap: str | None) -> Settings:
    """The option first, then the environment, the settings file, localhost:9092, as for an App."""
    if bootstrap is None:
        return Settings.load()
    return Settings.load(bootstrap_servers=bootstrap, servers_from="--bootstrap")


def admin_for(settings: Settings, timeout: float = 5.0) -> Admin:
    """An admin client with the settings' way to sign in."""
    return Admin(settings.bootstrap_servers, common_config(settings), timeout=timeout)


_UNSEEN = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def print_json(value: Any) -> None:
    """One line of JSON; text outside of ASCII stays readable, what can't be seen is written as `\\u…`."""
    text = json.dumps(value, ensure_ascii=False)
    sys.stdout.write(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def print_table(columns: list[tuple[str, bool]], rows: list[tuple[object, ...]]) -> None:
    """A table with a line under its head; (title, whether it holds numbers) for each column.

    Cells are taken literally: no markup of Rich's, and whoever calls has made control characters visible.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title, numeric in columns:
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    # Into a pipe go whole lines, however long: what comes next there has no screen.
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, highlight=False).print(table, soft_wrap=width is not None)
