"""Takes the stack down: the services first, so that they can still commit, then the broker.

Promise: only what this stack started is stopped, and nothing of it is left; running it twice is no error.
"""

from __future__ import annotations

import shutil
import time

from stack import supervisor
from stack.settings import Settings
from stack.up import Say, local_broker


def down(settings: Settings, *, purge: bool, say: Say = print) -> None:
    """Stop everything; with `purge` delete the broker's data and the logs, too."""
    since = time.monotonic()
    running = supervisor.find_all(settings)
    stopped = bool(running)
    if running:
        say(f"stopping {', '.join(one.name for one in running)}")
    for name in supervisor.stop(settings, running):
        say(
            f"{name} did not stop within {supervisor.STOP_PATIENCE:.0f} s and was killed; its log may say why"
        )
    broker = local_broker(settings, say)
    status = broker.status() if broker else None
    if broker is None or (status is not None and status.foreign):
        say(f"broker {settings.bootstrap} wasn't started from here: left as it is")
    elif status is not None and any(node.pid for node in status.nodes):
        say("stopping the broker")
        broker.stop()
        stopped = True
    (settings.run_dir / "consumers").unlink(missing_ok=True)
    if purge:
        if broker is not None:
            broker.purge()
        for folder in (settings.logs_dir, settings.pids_dir):
            shutil.rmtree(folder, ignore_errors=True)
        say(f"deleted the data and the logs in {settings.run_dir}")
    say(f"down ({time.monotonic() - since:.1f} s)" if stopped else "nothing was running")
