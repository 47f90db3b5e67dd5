"""Starting `member.py` processes and reading what they tell."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waiting import wait_until

HERE = Path(__file__).parent


class Member:
    """One consumer process. `events` grows as it tells; `log` is its stderr so far."""

    def __init__(
        self, config: dict[str, Any], folder: Path, name: str, *, program: str = "member.py"
    ) -> None:
        self.name = name
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / program), str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self.log_lines: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log_lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        return "\n".join(self.log_lines)

    def told(self, event: str) -> list[dict[str, Any]]:
        return [e for e in list(self.events) if e["event"] == event]

    def owned(self) -> set[int]:
        found: set[int] = set()
        for e in list(self.events):
            if e["event"] == "assigned":
                found |= set(e["partitions"])
            elif e["event"] in ("revoked", "lost"):
                found -= set(e["partitions"])
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, timeout: float = 15.0) -> int:
        """Wait for the end; the exit status."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} did not end within {timeout} s; its log:\n{self.log}"
            ) from None
        for reader in self._readers:
            reader.join(5.0)
        return status

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()


class Group:
    """Members of one group, ended with the test."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self._folder = folder
        self.config = config
        self.members: list[Member] = []

    def start(self, **more: Any) -> Member:
        member = Member({**self.config, **more}, self._folder, f"member-{len(self.members) + 1}")
        self.members.append(member)
        return member

    def settle(self, *members: Member, partitions: int, timeout: float = 20.0) -> None:
        """Wait until `members` own all partitions between them, evenly."""
        sizes = {partitions // len(members), -(-partitions // len(members))}

        def even() -> bool:
            owned = [m.owned() for m in members]
            return set().union(*owned) == set(range(partitions)) and {len(o) for o in owned} <= sizes

        wait_until(even, timeout, lambda: "\n".join(f"{m.name}: {m.owned()}\n{m.log}" for m in members))

    def told(self, event: str) -> list[dict[str, Any]]:
        return sorted((e for m in self.members for e in m.told(event)), key=lambda e: e["at"])

    def handled(self) -> list[str]:
        return [e["id"] for e in self.told("end")]

    def wait_handled(self, ids: set[str], timeout: float = 30.0) -> None:
        wait_until(
            lambda: ids <= set(self.handled()),
            timeout,
            lambda: (
                f"missing {sorted(ids - set(self.handled()))[:20]}\n" + "\n".join(m.log for m in self.members)
            ),
        )

    def close(self) -> None:
        for member in self.members:
            if member.process.poll() is None:
                member.process.kill()
            member.ended()  # its readers, too, before their pipes are closed
            for pipe in (member.process.stdout, member.process.stderr):
                if pipe is not None:
                    pipe.close()


Sender = Callable[..., list[str]]
