"""Run the demo."""

import sys

from mcpconn.demo.command import main

if __name__ == "__main__":
    sys.exit(main())
