"""For all suites: Hypothesis judges results, not this machine's speed, and says how to repeat a failure."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, max_examples=200)
settings.load_profile("ci" if os.environ.get("CI") else "default")
