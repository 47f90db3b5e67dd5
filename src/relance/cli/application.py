"""Finds the application that a command names as `module:app`.

Promise: what cannot be imported is one line that says what and from where.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from relance.errors import SettingsError

if TYPE_CHECKING:
    from relance.app import App

__all__ = ["load_app"]


def load_app(target: str) -> App:
    """The App of that name, imported with the present folder first. Raises SettingsError."""
    from relance.app import App

    module_name, colon, attribute = target.partition(":")
    if not colon or not attribute or "" in module_name.split("."):
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
    return app
