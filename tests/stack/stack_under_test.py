"""A stack on ports and in a folder of its own, so that a developer's stack beside it isn't touched.

Promise: the scripts are run as a user runs them, as programs; their parts can be looked at, and broken.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stack.cluster import Cluster
from stack.services import Service
from stack.settings import Settings, from_environment
from stack.supervisor import Running

from relance.ports import free_ports
from stack import services, supervisor

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Stack:
    """A stack by its environment: the scripts run in it, and its parts can be looked at and broken."""

    env: dict[str, str]

    @property
    def settings(self) -> Settings:
        return from_environment(self.env)

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.settings)

    def script(self, name: str, *args: str, timeout: float = 150.0) -> subprocess.CompletedProcess[str]:
        """Run ./scripts/NAME.sh; output and errors together, as a terminal shows them."""
        return subprocess.run(
            [str(ROOT / "scripts" / f"{name}.sh"), *args],
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def begin(self, name: str, *args: str) -> subprocess.Popen[str]:
        """The same, while it runs: in a session of its own, so that the whole of it can be interrupted."""
        return subprocess.Popen(
            [str(ROOT / "scripts" / f"{name}.sh"), *args],
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def up(self, *args: str) -> str:
        done = self.script("up", *args)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def find(self, name: str) -> Running:
        running = supervisor.find(self.settings, name)
        assert running is not None, f"{name} does not run"
        return running

    def stop(self, name: str) -> None:
        supervisor.stop(self.settings, [self.find(name)])

    def replace(self, service: Service) -> None:
        """Run another recipe in a service's place; up.sh will find it stale and put the right one back."""
        self.stop(service.name)
        supervisor.start(self.settings, service)

    @property
    def consumer(self) -> Service:
        return services.order_consumer(self.settings, 1)


def new_stack(folder: Path) -> Stack:
    """Free ports; the consumers get a run of ports above the first."""
    broker, api, console, consumer = free_ports(4)
    return Stack(
        {
            "RELANCE_RUN_DIR": str(folder / "run"),
            "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{broker}",
            "RELANCE_API_PORT": str(api),
            "RELANCE_CONSUMER_PORT": str(min(consumer, 65_000)),
            "RELANCE_CONSOLE_PORT": str(console),
        }
    )
