"""The disk cache: what it gives back, and that nothing bad in its folder is worse than an empty one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from attestable_mcp.endorse.cache import Answer, DiskCache
from attestable_mcp.limits import LIMITS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
URL = "https://pcs.example/sgx/certification/v4/tcb?fmspc=00"
ANSWER = Answer(body=b"body\n\x00\xff", headers={"tcb-info-issuer-chain": "%0A"})


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    cache = DiskCache(tmp_path / "deep" / "folder")
    cache.put(URL, ANSWER, LATER)
    return cache


def only_file(cache: DiskCache) -> Path:
    (path,) = cache.folder.iterdir()
    return path


def test_what_was_put_is_got(cache: DiskCache) -> None:
    assert cache.get(URL, NOW) == ANSWER
    assert cache.get(URL + "0", NOW) is None


def test_an_entry_ends_at_its_very_moment(cache: DiskCache) -> None:
    assert cache.get(URL, LATER - timedelta(microseconds=1)) == ANSWER
    assert cache.get(URL, LATER) is None


def test_a_newer_entry_takes_the_place_of_the_old(cache: DiskCache) -> None:
    cache.put(URL, Answer(body=b"new"), LATER)
    assert cache.get(URL, NOW) == Answer(body=b"new")
    assert only_file(cache).suffix == ".answer"  # nothing half-written is left


def test_every_flipped_or_missing_byte_is_noticed(cache: DiskCache) -> None:
    path = only_file(cache)
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert cache.get(URL, NOW) is None
        path.write_bytes(good[:place])
        assert cache.get(URL, NOW) is None
    path.write_bytes(good)
    assert cache.get(URL, NOW) == ANSWER


def test_an_entry_of_another_address_is_not_believed(cache: DiskCache) -> None:
    other = DiskCache(cache.folder)
    other.put("https://evil.example/", Answer(body=b"evil"), LATER)
    evil = other._path("https://evil.example/").read_bytes()
    cache._path(URL).write_bytes(evil)
    assert cache.get(URL, NOW) is None


def test_a_huge_entry_is_not_read_whole(cache: DiskCache) -> None:
    with only_file(cache).open("ab") as file:
        file.truncate(64 * LIMITS.endorsement)
    assert cache.get(URL, NOW) is None


def test_a_folder_in_place_of_a_file(cache: DiskCache) -> None:
    path = only_file(cache)
    path.unlink()
    path.mkdir()
    assert cache.get(URL, NOW) is None
    cache.put(URL, ANSWER, LATER)  # cannot be stored, and that is no failure
    assert cache.get(URL, NOW) is None
