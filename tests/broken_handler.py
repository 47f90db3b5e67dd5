"""A module that imports well at home and not in a worker process."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

in_a_child = getattr(
    multiprocessing.current_process(), "_inheriting", False
)  # true while it is imported there

match os.environ.get("BROKEN_HANDLER") if in_a_child else None:
    case "raise":
        raise RuntimeError("the licence file is missing")
    case "hang":
        Path(os.environ["BROKEN_HANDLER_HERE"]).touch()
        time.sleep(60)


def handle(value: int) -> None:
    pass
