"""The command line of the stack: `up`, `down`, `logs`, `validate`; the scripts of the same names call it.

Promise: a usage error ends with status 2 and its reason, a failure with 1 and its cause, an interrupt with
130 (SIGTERM: 143) after cleaning up; never with a traceback for something that a reader can act on.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from relance.broker.files import locked
from relance.errors import RelanceError
from stack import logs
from stack.down import down
from stack.interrupts import Interrupted, deaf, interruptible
from stack.settings import Settings, StackError, UsageError, from_environment, parse_scale
from stack.up import Launch, table


def main(argv: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        options, unknown = _parser().parse_known_args(argv)
        if unknown:
            # Told by the command's own parser: its usage names the script and the options that there are.
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        settings = from_environment(os.environ)
        check_folder(settings)
        run: Callable[[Settings, argparse.Namespace], int] = options.run
        return run(settings, options)
    except UsageError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except (StackError, RelanceError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `logs.sh | head` closed the pipe: nothing more to say, and nothing to complain about at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Interrupted as interrupt:
        print("interrupted", file=sys.stderr)
        return 128 + int(interrupt.args[0])
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", prog="./scripts/up.sh", help="start what doesn't run, and wait for it")
    up.add_argument("--scale", metavar="consumer=N", help="how many second consumers run (0 to 20)")
    up.set_defaults(run=_up, parser=up)

    stop = commands.add_parser("down", prog="./scripts/down.sh", help="stop everything")
    stop.add_argument("--purge", action="store_true", help="delete the broker's data and the logs, too")
    stop.set_defaults(run=_down, parser=stop)

    log = commands.add_parser("logs", prog="./scripts/logs.sh", help="show the logs")
    log.add_argument(
        "name", nargs="?", metavar="NAME", help="order-api, order-consumer-1, …, console, broker"
    )
    log.add_argument("--tail", type=_count, metavar="N", help="only the last N lines")
    log.add_argument("-f", "--follow", action="store_true", help="go on as lines are written")
    log.set_defaults(run=_logs, parser=log)

    check = commands.add_parser(
        "validate", prog="./scripts/validate.sh", help="run the labs' checkpoint list"
    )
    check.set_defaults(run=_validate, parser=check)
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines (0 to 999999999)")
    return int(text)


def _up(settings: Settings, options: argparse.Namespace) -> int:
    consumers = None if options.scale is None else parse_scale(options.scale)
    since = time.monotonic()
    with interruptible(), alone(settings):
        launch = Launch(settings)
        try:
            wanted = launch.run(consumers)
        except BaseException as error:
            with deaf():
                if isinstance(error, StackError | RelanceError):
                    print(f"FAILED: {error}", file=sys.stderr)
                launch.undo()
            if isinstance(error, StackError | RelanceError):
                return 1
            raise
    took = f"up in {time.monotonic() - since:.1f} s"
    print(f"\n{took}; stop it with ./scripts/down.sh\n\n{table(settings, wanted)}")
    return 0


def _down(settings: Settings, options: argparse.Namespace) -> int:
    with alone(settings):
        down(settings, purge=options.purge)
    return 0


def _logs(settings: Settings, options: argparse.Namespace) -> int:
    logs.show(settings, options.name, tail=options.tail, follow=options.follow)
    return 0


def _validate(settings: Settings, options: argparse.Namespace) -> int:
    from stack.validate import validate  # only this command needs it

    with interruptible(), alone(settings):
        return validate(settings)


def check_folder(settings: Settings) -> None:
    """Raise UsageError where the run folder isn't there and can't be made."""
    try:
        settings.run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"can't make the folder {settings.run_dir}: {error.strerror}"
        raise UsageError(f"wrong setting: RELANCE_RUN_DIR: {problem}") from None


def alone(settings: Settings) -> AbstractContextManager[None]:
    """One `up`, `down` or `validate` of a stack at a time: a second one waits and says so."""
    busy = "another up, down or validate of this stack is at work: waiting for it"
    return locked(settings.run_dir / "stack.lock", lambda: print(busy, file=sys.stderr))
