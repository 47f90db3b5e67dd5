"""A console as a user runs it: the `relance` command in a process of its own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RELANCE = Path(sys.executable).with_name("relance")


@dataclass
class RunningConsole:
    """`url` without a slash at its end."""

    url: str
    process: subprocess.Popen[str]


@contextlib.contextmanager
def console(bootstrap: str, *options: str) -> Iterator[RunningConsole]:
    """Start it on a free port, wait until it says where it is, and stop it."""
    command = [str(RELANCE), "console", "--port", "0", "--bootstrap", bootstrap, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = process.stdout.readline()
            found = re.search(r"http://\S+", said)
            if found is None:
                process.terminate()
                raise AssertionError(f"the console did not start: {said}{process.stderr.read()}")
            yield RunningConsole(found.group(), process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
