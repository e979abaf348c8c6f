"""`python -m attestable_mcp` is the command line."""

import sys

from attestable_mcp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
