"""`relance`: finds the command and runs it.

Promises: only the module of the command that was called is imported, so `relance --help` is quick; what goes
wrong is one line on stderr, `relance: …`, never a traceback (but with RELANCE_TRACEBACK=1). Exit status 0,
1 (it failed), 2 (a wrong option or setting), 130 (Ctrl-C); `broker status` adds 3 (nothing answers), a broker
that SIGTERM or SIGHUP interrupts 143 or 129, and `run` what `App.run` ends with.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["COMMANDS", "main"]

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "run": ("relance.cli.run:run", "Run an application: relance run module:app."),
    "produce": ("relance.cli.produce:produce", "Write records, with keys where Java's producers put them."),
    "topics": (
        "relance.cli.topics:app",
        "List, create and delete topics; make those that an App needs.",
    ),
    "console": ("relance.cli.console:console", "Show topics, records, groups and lag in a browser."),
    "broker": ("relance.cli.broker:app", "Start and stop a local Apache Kafka for development."),
}
"""Name → (module:attribute, one line of help). The attribute is a Typer app or a function."""


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point; always leaves by SystemExit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.exit(_guarded(arguments))


def _guarded(arguments: list[str]) -> int:
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us is gone (`| head`): what is left in the buffer has nobody to go to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # The last place where an error can still become a line.
        if os.environ.get("RELANCE_TRACEBACK"):
            raise
        return _said(error)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        sys.stdout.write(_help())
        return 0 if arguments else 2
    if arguments[0] in ("--version", "-V"):
        from importlib.metadata import version

        sys.stdout.write(f"relance {version('relance')}\n")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        return _unknown(name)
    target, _ = COMMANDS[name]
    module, _, attribute = target.partition(":")
    return _run(getattr(importlib.import_module(module), attribute), name, rest)


def _run(target: Any, name: str, arguments: list[str]) -> int:
    import typer

    app = target
    if not isinstance(target, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command()(target)
    command = typer.main.get_command(app)
    result = command.main(arguments, prog_name=f"relance {name}", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _said(error: Exception) -> int:
    from relance.errors import RelanceError, SettingsError

    if isinstance(error, SettingsError):
        return _complain("; ".join(f"{key}: {problem}" for key, problem in error.problems), 2)
    if isinstance(error, RelanceError):
        return _complain(str(error), 1)
    # By shape: Typer keeps its usage errors in a private module.
    name, context = type(error).__name__, getattr(error, "ctx", None)
    if name == "NoArgsIsHelpError":
        # Made of the help's text, which Rich has printed already; without Rich it is still to be printed.
        sys.stderr.write(str(error))
        return 2
    if callable(describe := getattr(error, "format_message", None)):
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        return _complain(f"{describe()}{hint}", 2)
    if name == "Abort":
        # What an older Typer makes of Ctrl-C; else somebody was asked, and did not say yes.
        return 130 if isinstance(error.__cause__, KeyboardInterrupt) else _complain("not confirmed", 1)
    if isinstance(error, OSError) and error.strerror:
        return _complain(f"{error.filename or 'system'}: {error.strerror}", 1)
    return _complain(f"unexpected {name}: {error} (RELANCE_TRACEBACK=1 shows where)", 1)


def _unknown(name: str) -> int:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; the commands are {', '.join(COMMANDS)}"
    return _complain(f"no command {name!r}{hint}", 2)


def _complain(text: str, status: int) -> int:
    from relance.text import visible

    # One line, and nothing that a terminal obeys, whatever the text holds.
    sys.stderr.write(f"relance: {visible(' '.join(text.split()))}\n")
    return status


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "".join(f"  {name:<{width}}  {text}\n" for name, (_, text) in COMMANDS.items())
    return (
        "Usage: relance COMMAND [OPTIONS]\n\n"
        "Kafka consumers that survive bad records, failing services and rebalances.\n\n"
        f"Commands:\n{rows}\n"
        "Options:\n"
        f"  {'--help':<{width + 2}}{'':2}This text; with a command, its own.\n"
        f"  {'--version':<{width + 2}}{'':2}The version.\n"
    )


if __name__ == "__main__":
    main()
