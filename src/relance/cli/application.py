"""Finds the application that a command names as `module:app`.

Promise: what cannot be imported is one line that says what and from where.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from relance.errors import RelanceError, SettingsError

if TYPE_CHECKING:
    from relance.app import App

__all__ = ["load_app"]


def load_app(target: str) -> App:
    """The App of that name, imported with the present folder first. Raises SettingsError."""
    from relance.app import App, imported_by_command

    module_name, colon, attribute = target.partition(":")
    if not colon or not attribute or "" in module_name.split("."):
        raise SettingsError("MODULE:APP", f"{target!r} lacks a part, as in {_example(module_name)}")
    sys.path.insert(0, str(Path.cwd()))
    mark = imported_by_command.set(module_name)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failed(module_name, error) from error
        raise SettingsError("MODULE:APP", f"there is no module {error.name!r} in {Path.cwd()}") from error
    except RelanceError:
        raise
    except Exception as error:
        raise _failed(module_name, error) from error
    finally:
        imported_by_command.reset(mark)
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        found = "nothing" if app is None else f"a {type(app).__name__}"
        raise SettingsError("MODULE:APP", f"{module_name} holds {found} named {attribute!r}, not an App")
    return app


def _example(module_name: str) -> str:
    return f"{module_name}:app" if all(map(str.isidentifier, module_name.split("."))) else "shop.orders:app"


def _failed(module_name: str, error: Exception) -> SettingsError:
    """That the user's module raised this while it was imported, and at which line of the user's code."""
    return SettingsError(
        "MODULE:APP",
        f"the import of {module_name!r} failed{_place(error)}: {type(error).__name__}: {error}",
    )


def _place(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}, line {error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
    ]
    folders = (Path(__file__).parents[1], *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
    foreign = tuple(f"{folder}{os.sep}" for folder in folders)
    own = [frame for frame in frames if not frame.filename.startswith(foreign)]
    # Without a line of its own, the module is itself installed, or has no source: only `load_app` is left.
    last = (own or frames)[-1]
    return f" at {last.filename}, line {last.lineno}"
