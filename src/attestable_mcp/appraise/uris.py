"""What a resource's URI may be taken for, by whoever reads it.

Servers compare URIs as text, or as URLs of RFC 3986 or of WHATWG, or hand a part of them to a file system or a
database. A rule that goes by one of these readings is got around by another. So a URI has several readings here, each
has to be allowed, and one whose readers could part ways altogether has none.
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

from attestable_mcp.limits import LIMITS

_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})|%25")
_SLASHES = re.compile(r"/+")
_AUTHORITY = re.compile(r"//([^/?]*)(.*)", re.DOTALL)
_USER = re.compile(r"^([^/?]*//)[^/?]*@")
_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443", "ftp": "21"}


def readings(uri: str) -> tuple[str, ...]:
    """As it stands, then, also where that is the same, folded: with and without its user, with and without its query.

    Folded are: case, Unicode's compatible forms (NFKC), percent-encoding, runs of slashes and those at the end, the
    fragment, a default port, `localhost` of files. Nothing comes of white space at an end, what cannot be printed,
    backslashes, `.` and `..` as segments, percent signs that encode nothing or one another, and more than
    `LIMITS.resource_uri` characters.
    """
    text = _decoded(uri) if 0 < len(uri) <= LIMITS.resource_uri else None
    if text is None:
        return ()
    whole = text.partition("#")[0]
    anybodys = _USER.sub(r"\1", whole)
    folded = [_folded(form) for start in (text, whole, anybodys) for form in (start, start.partition("?")[0])]
    return (uri, *dict.fromkeys(folded))


@lru_cache(maxsize=1024)
def folded_pattern(pattern: str) -> str | None:
    """The pattern that is held against folded readings; None where it could itself be read in more than one way."""
    text = _decoded(pattern)
    new = any(text.count(sign) != pattern.count(sign) for sign in "*?[") if text is not None else True
    return None if text is None or new or "#" in text or "{" in text else _folded(text)


def may_lead_to(template: str, pattern: str) -> bool:
    """Could a URI made from this template (RFC 6570) be one that the folded pattern is about? Goes by their beginnings.

    Says yes too often rather than too rarely.
    """
    text = _decoded(template.partition("{")[0])
    begins, wanted = "" if text is None else _folded(text), re.split(r"[*?]", pattern)[0]
    return begins.startswith(wanted) or wanted.startswith(begins)


def _decoded(text: str) -> str | None:
    """Without percent-encoding, in one case and one form of each character; None for what is to have no reading."""
    if _PERCENT.search(text) or text != text.strip() or not text.isprintable():
        return None
    try:
        plain = unquote_to_bytes(text).decode()
    except UnicodeError:
        return None
    plain = normalize("NFKC", normalize("NFKC", plain).casefold()).replace("\N{IDEOGRAPHIC FULL STOP}", ".")
    segments = re.split(r"[/?#]", plain)
    odd = not plain.isprintable() or "\\" in plain or any(part.partition(";")[0] in (".", "..") for part in segments)
    return None if odd else plain


def _folded(text: str) -> str:
    scheme, colon, rest = text.partition(":")
    if not colon:
        return _SLASHES.sub("/", text).strip("/")
    if found := _AUTHORITY.fullmatch(rest):
        rest = _host(scheme, found[1]) + found[2]
    return f"{scheme}:{_SLASHES.sub('/', rest).strip('/')}"


def _host(scheme: str, authority: str) -> str:
    host, colon, port = authority.rpartition(":")
    if colon and port in ("", _PORTS.get(scheme)):
        authority = host
    return "" if scheme == "file" and authority == "localhost" else authority.rstrip(".")
