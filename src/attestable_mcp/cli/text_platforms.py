"""Every sentence of `platforms`."""

from __future__ import annotations

HELP_ACTION = "sign, show or add"
HELP_FILE = "sign, add: the list as you write it (TOML); show: a signed list"
HELP_SOURCE = "add: the server or evidence whose platform is noted"
HELP_KEY = "sign: the private key (PEM, Ed25519 or P-256); `owner init FILE` makes one"
HELP_DAYS = "sign: how long the list shall hold (default: %(default)s days, at most 366)"
HELP_NOTE = "add: a word on the machine, such as where it stands"
HELP_OUTPUT = "sign: write the signed list to this file, else to stdout"
HELP_LOCKED = "sign: the file with the passphrase of the key"

NO_SOURCE = "add: which server or evidence? Give a SOURCE after the list"
NO_OUTPUT_KEY = "sign: name the private key with --key"
NOT_A_LIST = 'wanted name = "..." and [[platform]] tables with ppid, piid or chip_id'
NO_IDENTITY = "this evidence names no chip, so its platform cannot be listed"
NOT_ADMITTED = "the platform was not proven, so it is not listed"
LIST_HINT = "`platforms add LIST SOURCE` writes such a list"


def bad_days(value: str) -> str:
    """For `--days`."""
    return f"{value!r} is not a number of days from 1 to 366"


def known_already(path: object) -> str:
    """Nothing to add."""
    return f"{path} lists this platform already"


def added(path: object) -> str:
    """`add` wrote."""
    return f"added to {path}: sign the list anew, and bring it to whoever judges by it"


def signed(path: object, count: int, expires: str, key: str) -> str:
    """`sign` wrote."""
    return (
        f"wrote {path}: {count} ids, good until {expires}\n"
        f'  in the policy: platforms = {{ file = "{path}", key = "{key}" }}'
    )
