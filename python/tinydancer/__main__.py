"""``python -m tinydancer``: the command line, for when the program's folder is not in PATH."""

import sys

from tinydancer.cli import main

if __name__ == "__main__":
    sys.exit(main())
