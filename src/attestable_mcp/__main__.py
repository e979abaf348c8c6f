"""`python -m attestable_mcp` is the command line."""

from attestable_mcp.cli.main import entry

if __name__ == "__main__":
    entry()
