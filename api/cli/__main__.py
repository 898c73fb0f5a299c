"""`python -m api.cli` is `holdfast`."""

import sys

from api.cli import main

sys.exit(main())
