"""What the reader of tokens takes as base64url, and that a remembered header changes nothing."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from attestable_mcp.errors import AttestationError, MalformedEvidence, UnsupportedEvidence
from attestable_mcp.wire.token import read_token


def _part(content: object) -> bytes:
    return urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")


HEADER, CLAIMS = _part({"alg": "ES256", "kid": "a"}), _part({"iss": "x"})


@pytest.mark.parametrize("size", range(7))
def test_signatures_of_every_length_are_read_back(size: int) -> None:
    raw = bytes(range(250, 250 + size)) if size < 6 else b"\xff" * size
    mark = urlsafe_b64encode(raw).rstrip(b"=")
    assert read_token(b".".join((HEADER, CLAIMS, mark))).signature == raw


@pytest.mark.parametrize(
    "mark", [b"AB", b"AAB", b"A", b"AA==", b"AA=", b"A+AA", b"A/AA", b"AA A", b"AA\nA", b"A\xffAA"]
)
def test_base64url_has_one_form(mark: bytes) -> None:
    with pytest.raises(MalformedEvidence, match="base64url"):
        read_token(b".".join((HEADER, CLAIMS, mark)))


def test_a_header_read_before_is_read_the_same_and_a_refused_one_stays_refused() -> None:
    first, second = (read_token(b".".join((HEADER, _part({"n": n}), b"AA"))) for n in (1, 2))
    assert first.header == second.header
    assert (first.algorithm, first.kid) == (second.algorithm, second.kid) == ("ES256", "a")
    assert (first.claims["n"], second.claims["n"]) == (1, 2)
    for _ in range(2):
        with pytest.raises(UnsupportedEvidence):
            read_token(b".".join((_part({"alg": "none"}), CLAIMS, b"AA")))
        with pytest.raises(AttestationError):
            read_token(b".".join((_part({"alg": "ES256", "crit": []}), CLAIMS, b"AA")))


def test_claims_that_share_a_path_are_refused() -> None:
    token = read_token(b".".join((HEADER, _part({"a": {"b": 1}, "a.b": 2, "f": 1.5, "l": [True, None]}), b"AA")))
    with pytest.raises(MalformedEvidence, match="twice"):
        _ = token.flat
    other = read_token(b".".join((HEADER, _part({"a": {"b": 1}, "f": 1.5, "l": [True, None, "t"]}), b"AA")))
    assert other.flat == {"a.b": 1, "f": "1.5", "l[0]": True, "l[2]": "t"}


@pytest.mark.parametrize("leaf", ["text", 1, True, 0.5])
def test_claims_are_as_deep_as_the_limit_whatever_they_are(leaf: object) -> None:
    def nested(depth: int) -> dict[str, Any]:
        return {"a": leaf if depth == 1 else nested(depth - 1)}

    assert read_token(b".".join((HEADER, _part(nested(12)), b"AA"))).flat.keys() == {".".join("a" * 12)}
    with pytest.raises(MalformedEvidence, match="deeper"):
        _ = read_token(b".".join((HEADER, _part(nested(13)), b"AA"))).flat
