"""`python -m smolora_core` is `smolora`."""

import sys

from smolora_core.cli import main

sys.exit(main())
