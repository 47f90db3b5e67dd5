"""The commands of the labs, of README and of CONTRIBUTING, run as a reader would type them, in order.

Promise: nothing is changed but the addresses, which are this stack's. Left out are the Docker forms, and what
would run these tests again or write the lock file.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess

import pytest
from stack_under_test import ROOT, Stack

_spec = importlib.util.spec_from_file_location("commands", ROOT / "labs" / "commands.py")
assert _spec is not None
assert _spec.loader is not None
labs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(labs)

ELSEWHERE = ("docker ", "./scripts/test.sh", "./scripts/lock.sh", ".venv/bin/towncrier")


def relocated(script: str, stack: Stack) -> str:
    settings = stack.settings
    ports = {
        "18082": settings.api_port,
        "18083": settings.consumer_port(1),
        "18085": settings.consumer_port(2),
        "8080": settings.console_port,
    }
    return re.sub(r"(?<=localhost:)(\d+)", lambda found: str(ports[found[1]]), script)


def run(script: str, stack: Stack) -> str:
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", relocated(script, stack)],
        cwd=ROOT,
        env={**os.environ, **stack.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, f"{script}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def test_the_commands_of_the_labs_do_what_they_are_there_for(other_stack: Stack) -> None:
    said = {
        section: "".join(run(script, other_stack) for script in scripts)
        for section, scripts in labs.commands("en").items()
    }
    assert said["start"].count('"status":"UP"') == 2
    assert "[DLT]" in said["lab-3"]
    assert "ORD-SAVED amount=200" in said["lab-3"]
    assert "partitions 2/2/2" in said["lab-4"]
    assert said["lab-4"].splitlines()[-1] == "30"
    sent, moved = said["lab-4"].index("ORD-REBAL-1: 200"), said["lab-4"].index("order-consumer-2 on")
    assert sent < moved < said["lab-4"].index("ORD-REBAL-30: 200"), (
        "orders come before, while and after it moves"
    )
    assert said["checkpoint"].splitlines()[-1] == "OK"
    assert "waiting for topic" in said["cleanup"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_commands_of_the_front_pages_run(other_stack: Stack, name: str) -> None:
    for block in re.findall(r"^```bash\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL):
        lines = [line for line in block.splitlines() if not line.startswith(ELSEWHERE)]
        if lines:
            run("\n".join(lines), other_stack)
