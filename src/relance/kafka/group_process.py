"""Asks about groups in a process of its own, whose death harms nothing: it is started again then.

Promise: whatever members of a group have written, this process lives, and every other group is answered for.
The group whose description ended the process is found, named in one log line, and asked about again only now
and then, alone.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import pickletools
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

from relance.errors import RelanceError
from relance.kafka.cluster import unreachable
from relance.kafka.groups import GroupAnswers

__all__ = ["GroupProcess"]

_log = logging.getLogger("relance.broker")

_START = 15.0  # seconds that a process may take to begin on a busy machine; a tenth of one is usual
_HAND_OVER = 2.0  # seconds that an answer may come after its deadline
_MOST_DEADLY = 1000  # groups that are remembered: whoever may join groups can make any number of them
_FIRST_WAIT, _LONGEST_WAIT = 60.0, 3600.0  # seconds until a deadly group is asked about again; it doubles

_CANNOT_TRAVEL = "the settings of the Kafka client hold what cannot be given to another process"
_WAY_OUT = "let a callback be a function of a module that can be imported"

_BEGIN = """
import sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:] = pipe.recv()
from relance.kafka.groups import serve
serve(pipe, int(sys.argv[2]))
import os
os._exit(0)
"""


@dataclass(slots=True)
class _Deadly:
    """A group that ended the process: asked about again at `until` (monotonic), then after `wait` seconds."""

    until: float
    wait: float
    problem: str


class _NoProcessError(Exception):
    """There is no process to ask; the text says why."""


class _DiedError(Exception):
    """The process ended during a question; `args[0]` says how."""


class GroupProcess:
    """The process and what is known about what kills it; any thread may ask, one at a time is answered.

    Where there can be no process, every group has that as its problem; so it is with settings in `client`
    that cannot be pickled or imported there, such as a callback that is a lambda or of the main program.
    """

    def __init__(self, bootstrap_servers: str, client: Mapping[str, Any] | None, timeout: float) -> None:
        self._servers = bootstrap_servers
        self._setup = (bootstrap_servers, dict(client or {}), timeout)
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._owner = os.getpid()
        self._deadly: dict[tuple[str, str], _Deadly] = {}

    def ask(self, question: str, groups: Collection[str], deadline: float) -> GroupAnswers[Any]:
        """The answers of `groups.QUESTIONS[question]`; raises as Admin's methods do.

        The first question waits for the process to begin, beyond the deadline if need be.
        """
        if self._owner != os.getpid():  # forked: the process, and whoever holds the lock, are the parent's
            self._owner, self._lock, self._child = os.getpid(), threading.Lock(), None
        if not self._lock.acquire(timeout=max(0.1, deadline - time.monotonic())):
            raise self._silent(question)
        try:
            return self._ask(question, list(dict.fromkeys(groups)), deadline)
        except _NoProcessError as error:
            return GroupAnswers({}, dict.fromkeys(groups, str(error)))
        finally:
            self._lock.release()

    def _ask(self, question: str, groups: list[str], deadline: float) -> GroupAnswers[Any]:
        found: dict[str, Any] = {}
        problems: dict[str, str] = {}
        now = time.monotonic()
        known = {name: self._deadly[question, name] for name in groups if (question, name) in self._deadly}
        problems |= {name: deadly.problem for name, deadly in known.items()}
        alone = [name for name, deadly in known.items() if deadly.until <= now]
        together = [name for name in groups if name not in known]
        if together:
            try:
                answers = self._once(question, together, deadline)
                found |= answers.found
                problems |= answers.problems
            except _DiedError:
                alone = together + alone
        # Half of the time that is left is for finding which group it was, the rest is the caller's.
        until = time.monotonic() + max(0.0, deadline - now) / 2
        for name in alone:
            if time.monotonic() > until:
                problems.setdefault(name, "not asked: there was no time left; look again")
                continue
            problems.pop(name, None)
            try:
                answers = self._once(question, [name], deadline)
            except _DiedError as death:
                problems[name] = self._killed_by(question, name, str(death))
                continue
            self._deadly.pop((question, name), None)
            found |= answers.found
            problems |= answers.problems
        return GroupAnswers(found, problems)

    def _once(self, question: str, groups: list[str], deadline: float) -> GroupAnswers[Any]:
        if self._child is None:
            began = time.monotonic()
            self._child = _Child(self._setup)
            deadline += time.monotonic() - began
        left = max(0.1, deadline - time.monotonic())
        try:
            answer = self._child.ask((question, groups, left), left + _HAND_OVER)
        except _DiedError:
            self._child = None
            raise
        except TimeoutError as error:
            self._child = None
            raise self._silent(question) from error
        if isinstance(answer, RelanceError):
            raise answer
        assert isinstance(answer, GroupAnswers)
        return answer

    def _killed_by(self, question: str, group: str, how: str) -> str:
        before = self._deadly.get((question, group))
        wait = _FIRST_WAIT if before is None else min(_LONGEST_WAIT, 2 * before.wait)
        problem = f"what a member wrote ended the Kafka client that read it ({how})"
        if before is None:
            _log.warning("group %r: %s; it is asked about again in %.0f s", group, problem, wait)
        self._deadly.pop((question, group), None)  # so that the first in it is the one seen longest ago
        self._deadly[question, group] = _Deadly(time.monotonic() + wait, wait, problem)
        if len(self._deadly) > _MOST_DEADLY:
            del self._deadly[next(iter(self._deadly))]
        return problem

    def _silent(self, question: str) -> RelanceError:
        now = datetime.now(UTC)
        what = f"say what is {question} of groups"
        return unreachable(self._servers, what, self._setup[2], now, now, "")


class _Child:
    """One process. Raises _NoProcessError where it cannot be started."""

    def __init__(self, setup: tuple[str, dict[str, Any], float]) -> None:
        try:
            pickled = pickle.dumps(setup)
        except Exception as error:  # whatever a user's object raises
            raise _NoProcessError(f"{_CANNOT_TRAVEL} ({error}); {_WAY_OUT}") from error
        if any(word == "__main__" for _, word, _ in pickletools.genops(pickled)):
            raise _NoProcessError(f"{_CANNOT_TRAVEL} (a callback of the main program); {_WAY_OUT}")
        self._pipe, theirs = multiprocessing.Pipe()
        try:
            command = [sys.executable, "-P", "-c", _BEGIN, str(theirs.fileno()), str(os.getpid())]
            nothing = subprocess.DEVNULL
            # A session of its own: Ctrl-C at a terminal is the parent's to answer.
            self._process = subprocess.Popen(
                command,
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            self._pipe.close()
            raise _NoProcessError(f"no process can be started to ask about groups: {error}") from error
        finally:
            theirs.close()
        self._end = weakref.finalize(self, _end, self._process, self._pipe, os.getpid())
        try:
            self._pipe.send(list(sys.path))
            self._pipe.send(setup)
            if not self._pipe.poll(_START):
                raise TimeoutError
            self._pipe.recv()
        except (EOFError, OSError) as error:  # TimeoutError is an OSError
            self._end()
            raise _NoProcessError(
                f"the process that asks about groups did not start ({self._how()})"
            ) from error

    def ask(self, what: object, timeout: float) -> Any:
        """Its answer; raises _DiedError or TimeoutError, and then it has ended."""
        try:
            self._pipe.send(what)
            if self._pipe.poll(timeout):
                return self._pipe.recv()
        except (EOFError, OSError) as error:
            self._end()
            raise _DiedError(self._how()) from error
        self._end()
        raise TimeoutError

    def _how(self) -> str:
        status = self._process.returncode
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-status).name
        return f"status {status}"


def _end(process: subprocess.Popen[bytes], pipe: Connection, owner: int) -> None:
    pipe.close()
    if os.getpid() != owner:
        return  # a fork of ours: the process is its parent's
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
