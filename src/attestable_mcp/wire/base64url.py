"""base64url without padding, in its one form (RFC 4648 sections 3.5 and 5, RFC 7515 section 2)."""

from __future__ import annotations

import base64
import binascii

_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LAST = {0: _DIGITS, 2: _DIGITS[::16], 3: _DIGITS[::4]}
"""The characters in which a text of so many beyond a multiple of four may end: the bits left over are zero."""


def encode(data: bytes) -> str:
    """The one form of `data`."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: bytes | str) -> bytes:
    """The bytes that `encode` makes `text` of; of an empty text none.

    Raises:
        ValueError: another alphabet, padding, white space, or bits left over in the last character.
    """
    part = text.encode("ascii") if isinstance(text, str) else text
    if b"+" in part or b"/" in part or b"=" in part:
        raise ValueError("not base64url")
    plain = part.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(part) % 4)
    found = binascii.a2b_base64(plain, strict_mode=True)
    if part and part[-1] not in _LAST[len(part) % 4]:
        raise ValueError("base64url is not in its one form")
    return found
