"""`python -m fasthash`: the command line where its script is not on PATH."""

import sys

from fasthash.cli import main

sys.exit(main())
