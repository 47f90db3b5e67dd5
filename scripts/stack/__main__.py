"""Lets `python scripts/stack COMMAND` run without an installation and without touching PYTHONPATH.

PYTHONPATH would be inherited by every service that is started from here.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from stack.commands import main  # noqa: E402 (found only after the line above)

sys.exit(main(sys.argv[1:]))
