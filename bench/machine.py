"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from relance.broker import KAFKA_VERSION


def facts() -> dict[str, Any]:
    """Processor, memory, kernel, Python, Java, Kafka; no names of the machine."""
    return {
        "cpu": _first_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_mb": _memory_mb(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "java": _java(),
        "kafka": KAFKA_VERSION,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _first_of(file: str, name: str) -> str:
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def _memory_mb() -> int | None:
    words = _first_of("/proc/meminfo", "MemTotal").split()
    return int(words[0]) // 1024 if words else None


def _java() -> str:
    try:
        told = subprocess.run(
            ["java", "-version"], capture_output=True, text=True, check=False, timeout=30
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.splitlines()[0] if told else ""
