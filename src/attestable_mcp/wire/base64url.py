"""base64url without padding, in its one form (RFC 4648 sections 3.5 and 5, RFC 7515 section 2)."""

from __future__ import annotations

import binascii

_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LAST = {0: _DIGITS, 2: _DIGITS[::16], 3: _DIGITS[::4]}
"""The characters in which a text of so many beyond a multiple of four may end: the bits left over are zero."""


_PADDING = (b"", b"===", b"==", b"=")
_FROM_PLAIN = bytes.maketrans(b"+/", b"-_")
_TO_PLAIN = bytes.maketrans(b"-_+/=", b"+/!!!")
"""What is of the other alphabet, and padding, becomes what neither has."""


def encode(data: bytes) -> str:
    """The one form of `data`."""
    return binascii.b2a_base64(data, newline=False).translate(_FROM_PLAIN).rstrip(b"=").decode("ascii")


def decode(text: bytes | str) -> bytes:
    """The bytes that `encode` makes `text` of; of an empty text none.

    Raises:
        ValueError: another alphabet, padding, white space, or bits left over in the last character.
    """
    part = text.encode("ascii") if isinstance(text, str) else text
    plain = part.translate(_TO_PLAIN) + _PADDING[len(part) % 4]
    found = binascii.a2b_base64(plain, strict_mode=True)
    if part and part[-1] not in _LAST[len(part) % 4]:
        raise ValueError("base64url is not in its one form")
    return found
