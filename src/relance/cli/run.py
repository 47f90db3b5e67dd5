"""`relance run module:app`: import an application and run it until it is told to stop.

Promise: what cannot be imported is one line that says what and from where; what a record holds can neither
forge a line of the log nor move the terminal.
"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from relance.cli.application import load_app
from relance.settings import check_setting
from relance.text import one_line, visible

__all__ = ["Plain", "run"]


def run(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="For example shop.orders:app.")],
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")] = None,
) -> None:
    """Run an application until SIGTERM or Ctrl-C; once more ends it at once."""
    level = None if log_level is None else check_setting("log_level", log_level, written="--log-level")
    app = load_app(target)
    handler = logging.StreamHandler()
    handler.setFormatter(Plain("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level or app.settings.log_level, handlers=[handler])
    app.run()


class Plain(logging.Formatter):
    """Each message in one line; what a terminal would obey is made visible, in stack traces too."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line."""
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the stack trace where there is one."""
        return visible(super().format(record))
