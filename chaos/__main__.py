"""`python -m chaos`; see `command`."""

import sys

from chaos.command import main

sys.exit(main())
