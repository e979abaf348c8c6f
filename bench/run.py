"""Every benchmark, one after the other. Each prints ratios to a peer or a floor measured in its own run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("verification.py", "evidence.py", "connect.py", "calls.py", "receipts.py", "sessions.py", "bridges.py")


def main() -> int:
    folder = Path(__file__).parent
    return max(subprocess.call([sys.executable, str(folder / name)]) for name in SCRIPTS)


if __name__ == "__main__":
    sys.exit(main())
