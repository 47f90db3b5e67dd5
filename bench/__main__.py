"""Lets `python -m bench` run from the root of the checkout."""

import sys

from bench.command import main

sys.exit(main())
