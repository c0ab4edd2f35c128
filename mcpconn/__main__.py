"""`python -m mcpconn`: the command line, as `mcpconn` on the PATH is."""

import sys

from mcpconn.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
