"""``python -m ex4d`` is the command ``ex4d``."""

import sys

from ex4d.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
