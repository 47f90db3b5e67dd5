"""One Kafka process: formatted, launched, watched until it serves; promises that what runs is on record.

The pid file is written while interrupts are held back, so no Kafka runs that `stop` would not find.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from relance.broker.engine import BrokerFailedError, PortHeldError
from relance.broker.layout import Layout, Node
from relance.broker.probe import Answer, ask, members
from relance.broker.processes import Identity, alive, identify, uninterrupted
from relance.broker.properties import LOG4J, as_file
from relance.ports import holder_of, port_is_free

LOOPBACK = "127.0.0.1"
_TROUBLE = re.compile(r"\b(ERROR|FATAL|Exception|Caused by|OutOfMemory|Could not|Unrecognized)\b")
_TAIL_BYTES = 64 << 10
_LARGEST_LOG = 16 << 20  # a longer one is put aside at the next start


@dataclass(frozen=True, slots=True)
class Jvm:
    """What it takes to run a class of Kafka."""

    java: Path
    libs: Path
    heap_mb: int

    def command(self, log4j: Path, main: str, *arguments: str) -> list[str]:
        """The command line of a JVM that shares a small machine with what is being developed.

        Measured on two cores: with the serial collector and the first compiler only, the broker is up in
        2.3 s instead of 3.1 s and takes 0.9M records/s of 200 B instead of 0.65M, in 300 MB instead of 370.
        """
        return [
            str(self.java),
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-Xshare:auto",
            "-Djava.awt.headless=true",
            "-Dkafka.logs.dir=.",
            f"-Dlog4j2.configurationFile={log4j.as_uri()}",
            "-cp",
            f"{self.libs}/*",
            main,
            *arguments,
        ]


def write_properties(layout: Layout, node: Node, properties: Mapping[str, str]) -> None:
    """Write what the node reads at its start."""
    home = layout.node(node.id)
    home.mkdir(parents=True, exist_ok=True)
    (home / "server.properties").write_text(as_file(properties))
    (home / "log4j2.properties").write_text(LOG4J)


def start_format(layout: Layout, node: Node, jvm: Jvm, cluster_id: str) -> subprocess.Popen[str] | None:
    """Begin to format a node's data directory; None where that has been done.

    Its end is noted in a file of our own: data without that file are of a format that was cut short.
    """
    home = layout.node(node.id)
    if (home / "formatted").exists():
        return None
    shutil.rmtree(layout.data(node.id), ignore_errors=True)
    options = ("format", "-t", cluster_id, "-c", "server.properties", "--ignore-formatted")
    return subprocess.Popen(
        jvm.command(home / "log4j2.properties", "kafka.tools.StorageTool", *options),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def finish_format(layout: Layout, node: Node, formatting: subprocess.Popen[str]) -> None:
    """Wait for a format to end. Raises BrokerFailedError with what the tool said."""
    said, _ = formatting.communicate()
    if formatting.returncode != 0:
        raise BrokerFailedError(f"Kafka could not format {layout.data(node.id)}: {trouble(said)}")
    (layout.node(node.id) / "formatted").touch()


def prepare_log(layout: Layout, node: Node) -> int:
    """Where in its log a node's words will begin; a long log is put aside first."""
    layout.logs.mkdir(parents=True, exist_ok=True)
    log = layout.log(node.id)
    if log.exists() and log.stat().st_size > _LARGEST_LOG:
        log.replace(log.with_name(f"{log.name}.1"))
    return log.stat().st_size if log.exists() else 0


def launch(layout: Layout, node: Node, jvm: Jvm) -> Identity:
    """Start Kafka on its own, with its log in a file, and note who it is."""
    home = layout.node(node.id)
    with layout.log(node.id).open("ab") as log, uninterrupted():
        # A session of its own: Ctrl-C in the terminal that started it must not end it later.
        process = subprocess.Popen(
            jvm.command(home / "log4j2.properties", "kafka.Kafka", "server.properties"),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        who = identify(process.pid) or Identity(process.pid, "ended at once")
        layout.write_pid(node.id, who)
    # It outlives this program, so nobody here waits for it: without this, Popen warns when it is collected.
    process.returncode = 0
    return who


def serves(node: Node, count: int) -> bool:
    """Whether the node takes clients and sees `count` brokers alive, itself among them."""
    if ask(LOOPBACK, node.port) is Answer.NOTHING:
        return False
    seen = {member.id for member in members(LOOPBACK, node.internal_port)}
    return node.id in seen and len(seen) >= count


def check_alive(layout: Layout, node: Node, who: Identity, since: int) -> None:
    """Raise BrokerFailedError where a node that was started has ended, saying why."""
    if alive(who):
        return
    log = layout.log(node.id)
    with log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - _TAIL_BYTES))
        said = file.read().decode(errors="replace")
    held = [port for port in (node.port, node.internal_port, node.controller_port) if not port_is_free(port)]
    if "Address already in use" in said and held:
        raise port_held(held[0])
    raise BrokerFailedError(f"Kafka (node {node.id}) ended while starting: {trouble(said)} (log: {log})")


def port_held(port: int) -> PortHeldError:
    """The error that names a port and who has it."""
    holder = holder_of(port)
    return PortHeldError(f"port {port} is held by {holder}; stop it, or choose another port with --port")


def trouble(said: str) -> str:
    """The line that tells most: the last cause, else the last words."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if _TROUBLE.search(line) and not line.startswith("at ")]
    causes = [line for line in telling if line.startswith("Caused by")]
    return (causes or telling or lines or ["it said nothing"])[-1]
