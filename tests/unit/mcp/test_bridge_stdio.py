"""The bridge's own streams: pipes and sockets by the event loop, all else by threads; no line lost, torn or changed."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from attestable_mcp.mcp.bridge_stdio import TOO_LONG, Input, Output

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="pipes are threads' work there")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """An end to read from and one to write to, both in blocking mode."""
    if request.param == "pipe":
        reading, writing = os.pipe()
    else:
        left, right = socket.socketpair()
        reading, writing = left.detach(), right.detach()
    yield reading, writing
    for each in (reading, writing):
        try:
            os.close(each)
        except OSError:
            continue


async def test_lines_come_as_they_are_and_end_with_the_other_side(ends: tuple[int, int]) -> None:
    reading, writing = ends
    before = threading.active_count()
    os.write(writing, b"one\ntw")
    lines = Input(reading, cap=10).lines()
    assert await anext(lines) == b"one"
    os.write(writing, b"o\r\n" + b"x" * 11 + b"\n\nlast")
    os.close(writing)
    assert [line async for line in lines] == [b"two\r", TOO_LONG, b"", b"last"]
    assert threading.active_count() == before


async def test_no_more_is_read_ahead_than_allowed_and_nothing_is_lost(ends: tuple[int, int]) -> None:
    reading, writing = ends
    sent = b"".join(b"%d " % number * 1000 + b"\n" for number in range(2000))  # 9.8 MB
    feeder = threading.Thread(target=_feed, args=(writing, sent), daemon=True)
    source = Input(reading)
    feeder.start()
    with anyio.fail_after(5):
        while source._chunks.qsize() < 64:
            await anyio.sleep(0.005)
    await anyio.sleep(0.05)
    assert source._chunks.qsize() == 64
    got = [line async for line in source.lines()]
    assert b"\n".join([*got, b""]) == sent


def _feed(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.close(descriptor)


async def test_closing_ends_the_lines_although_the_host_has_not(ends: tuple[int, int]) -> None:
    source = Input(ends[0])
    source.close()
    with anyio.fail_after(2):
        assert [line async for line in source.lines()] == []


async def test_a_file_is_read_by_a_thread(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\nb\n")
    descriptor = os.open(path, os.O_RDONLY)
    with anyio.fail_after(2):
        assert [line async for line in Input(descriptor).lines()] == [b"a", b"b"]
    os.close(descriptor)


async def test_a_line_goes_out_at_once_and_without_a_thread(ends: tuple[int, int]) -> None:
    reading, writing = ends
    sink = Output(writing)
    await sink.write(b"answer")
    os.set_blocking(reading, False)
    assert os.read(reading, 100) == b"answer\n"
    assert os.get_blocking(writing), "its mode belongs to all who share it"
    assert sink._thread is None
    await sink.aclose(1)
    os.write(writing, b"still open")


async def test_lines_stay_whole_and_in_order_for_a_reader_that_is_behind(ends: tuple[int, int]) -> None:
    reading, writing = ends
    sink = Output(writing)
    wanted = [b"%d " % number + b"x" * (number * 997 % 300_000) for number in range(300)]
    got = bytearray()

    def read_late() -> None:
        while len(got) < sum(map(len, wanted)) + len(wanted):
            got.extend(os.read(reading, 1 << 20))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_write_all, sink, wanted)
        await anyio.sleep(0.2)
        assert sink._thread is not None
        with anyio.fail_after(20):
            await anyio.to_thread.run_sync(read_late)
    assert bytes(got).split(b"\n") == [*wanted, b""]
    await sink.write(b"and on")
    await sink.aclose(5)
    assert os.read(reading, 100) == b"and on\n"


async def _write_all(sink: Output, lines: list[bytes]) -> None:
    for line in lines:
        await sink.write(line)


async def test_a_writer_that_is_given_up_tears_no_line(ends: tuple[int, int]) -> None:
    reading, writing = ends
    sink = Output(writing)
    line = b"y" * 1_000_000
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sink.write(line)
    got = bytearray()
    while len(got) < len(line) + 1:
        got += await anyio.to_thread.run_sync(os.read, reading, 1 << 20)
    assert got == line + b"\n"
    await sink.aclose(5)


async def test_a_writer_waits_while_the_reader_is_far_behind(ends: tuple[int, int]) -> None:
    sink = Output(ends[1])
    written = 0
    with anyio.move_on_after(0.2) as scope:
        while True:
            await sink.write(b"z" * 100_000)
            written += 1
    assert scope.cancelled_caught
    assert written < 80
    os.close(ends[0])
    await sink.aclose(2)


async def test_nobody_reading_is_noticed(ends: tuple[int, int]) -> None:
    reading, writing = ends
    sink = Output(writing)
    os.close(reading)
    await sink.write(b"hello?")
    with anyio.fail_after(2):
        await sink.lost.wait()
    await sink.write(b"dropped")
    await sink.aclose(1)
