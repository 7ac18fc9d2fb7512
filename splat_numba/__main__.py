"""`python -m splat_numba`: the command line, for where scripts are not on the path."""

import sys

from splat_numba.cli import main

sys.exit(main())
