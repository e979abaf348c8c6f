"""The error tree: one family, stable codes, documented exit codes."""

from __future__ import annotations

import re
from pathlib import Path

from attestable_mcp import errors


def family() -> list[type[errors.AttestationError]]:
    found, todo = [], [errors.AttestationError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo.extend(child for child in kind.__subclasses__() if child.__module__ == errors.__name__)
    return found


def test_codes_are_stable_words_and_each_class_has_its_own() -> None:
    codes = [kind.code for kind in family()]
    assert len(codes) >= 17
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", code) for code in codes)


def test_exit_codes_are_the_documented_ones() -> None:
    expected = {"configuration": 1, "endorsement_unavailable": 3, "attestation_unavailable": 3, "attester": 3}
    expected["attester_absent"] = 3
    expected["unsupported_certificate_evidence"] = 3
    for kind in family():
        assert kind.exit_code == expected.get(kind.code, 2), kind


def test_every_class_stands_in_the_error_table(repository: Path) -> None:
    table = (repository / "docs" / "errors.md").read_text(encoding="utf-8")
    for kind in family():
        assert f"`{kind.__name__}`" in table, kind
        assert f"`{kind.code}`" in table, kind


def test_every_code_raised_in_the_source_stands_in_the_error_table(repository: Path) -> None:
    table = (repository / "docs" / "errors.md").read_text(encoding="utf-8")
    used = set()
    for module in (repository / "src").rglob("*.py"):
        used |= set(re.findall(r"""\bcode=["']([a-z][a-z0-9_]+)["']""", module.read_text(encoding="utf-8")))
    assert used, "no code= found: the pattern of this test no longer fits the source"
    missing = sorted(code for code in used if f"`{code}`" not in table)
    assert not missing, f"docs/errors.md lacks {missing}"
