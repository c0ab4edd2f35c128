"""`python -m mcpconn.cli`."""

import sys

from mcpconn.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
