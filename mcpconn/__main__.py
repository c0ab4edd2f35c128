"""`python -m mcpconn` runs the command line, like the command `mcpconn`."""

import sys

from mcpconn.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
