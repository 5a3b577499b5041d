"""``python -m vedere`` is ``vedere``."""

import sys

from vedere.cli import main

sys.exit(main())
