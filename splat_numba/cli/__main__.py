"""`python -m splat_numba.cli`, for where scripts are not on the path."""

import sys

from splat_numba.cli.entry import main

sys.exit(main())
