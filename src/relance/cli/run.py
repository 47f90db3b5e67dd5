"""`relance run module:app`: import an application and run it until it is told to stop.

Promise: what cannot be imported is one line that says what and from where.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from relance.errors import SettingsError

__all__ = ["run"]


def run(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="For example shop.orders:app.")],
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Run an application until SIGTERM or Ctrl-C; once more ends it at once."""
    from relance.app import App

    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise SettingsError("MODULE:APP", f"{target!r} lacks a part, as in shop.orders:app")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise SettingsError("MODULE:APP", f"there is no module {error.name!r} in {Path.cwd()}") from error
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        found = "nothing" if app is None else f"a {type(app).__name__}"
        raise SettingsError("MODULE:APP", f"{module_name} holds {found} named {attribute!r}, not an App")
    logging.basicConfig(
        level=(log_level or app.settings.log_level).upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    app.run()
