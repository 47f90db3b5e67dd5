"""One stack for the whole suite, and a fresh one for the tests that need it.

Promise: what a test broke, `up.sh` has mended before the next one looks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The package `stack` lives beside the scripts and isn't installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from stack_under_test import Stack, new_stack


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = new_stack(tmp_path_factory.mktemp("stack"))
    yield stack
    done = stack.script("down", "--purge")
    assert done.returncode == 0, done.stdout


@pytest.fixture
def stack(_shared: Stack) -> Stack:
    """The suite's stack: up, healthy, with one second consumer."""
    _shared.up("--scale", "consumer=1")
    return _shared


@pytest.fixture
def other_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that nothing has started yet; taken down at the end whatever the test did to it."""
    stack = new_stack(tmp_path)
    yield stack
    stack.script("down", "--purge")
