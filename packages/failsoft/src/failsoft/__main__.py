"""``python -m failsoft``: the command line, where the program ``failsoft`` is not on the path."""

import sys

from failsoft.cli import main

if __name__ == "__main__":
    sys.exit(main())
