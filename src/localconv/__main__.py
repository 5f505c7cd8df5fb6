"""``python -m localconv``: see `localconv.command_line`."""

import sys

from .command_line import main

sys.exit(main())
