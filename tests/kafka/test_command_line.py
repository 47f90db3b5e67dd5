"""docs/command-line.md does what it says: its blocks are run in order and print what stands below them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from tests.browser.console_process import RELANCE

from relance.broker.jars import kafka_home
from relance.ports import free_ports
from waiting import wait_until

DOCUMENT = Path(__file__).parents[2] / "docs" / "command-line.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_document_do_what_it_says(tmp_path: Path) -> None:
    broker, console = free_ports(2)
    text = DOCUMENT.read_text().replace("9092", str(broker)).replace("8080", str(console))
    environment = os.environ | {
        "PATH": f"{RELANCE.parent}{os.pathsep}{os.environ['PATH']}",
        "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{broker}",
        "RELANCE_BOOTSTRAP_SERVERS": f"localhost:{broker}",
        "RELANCE_KAFKA_HOME": str(kafka_home()),
        "COLUMNS": "200",
    }
    ran = []
    try:
        for kind, code, wanted in BLOCK.findall(text):
            if kind == "python":
                (tmp_path / "shop.py").write_text(code)
                continue
            said = run(code, wanted, tmp_path, environment)
            missing = [piece for piece in pieces(wanted) if piece not in said]
            assert missing == [], f"{code}\nsaid:\n{said}"
            ran += re.findall(r"\brelance (\w+)", code)
    finally:
        subprocess.run(["relance", "broker", "stop", "--purge"], cwd=tmp_path, env=environment, check=False)
    assert set(ran) == {"broker", "topics", "produce", "run", "console"}


def pieces(wanted: str) -> list[str]:
    """What must be in the output: `…` stands for anything."""
    return [piece.strip() for piece in re.split("…|\n", wanted) if piece.strip()]


def run(code: str, wanted: str, folder: Path, environment: dict[str, str]) -> str:
    """The output of a block; one that would go on for ever is stopped when it has said what is wanted."""
    output = folder / "output"
    with output.open("w") as file:
        script = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", code],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            if re.match("relance (run|console) ", code):  # bash runs a lone command in its own place
                wait_until(
                    lambda: all(piece in output.read_text() for piece in pieces(wanted)), 30, output.read_text
                )
                script.send_signal(signal.SIGTERM)
            assert script.wait(90) == 0, output.read_text()
        finally:
            script.kill()
            script.wait()
    return output.read_text()
