"""The log: text or JSON, on stderr, without secrets and without the words of exceptions."""

from __future__ import annotations

import argparse
import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from attestable_mcp.cli.logs import TALK, Log, start_log
from attestable_mcp.cli.terminal import Terminal


@pytest.fixture
def started() -> Iterator[Callable[..., tuple[Log, io.StringIO]]]:
    """Start a log; whatever logging was set up before is there again afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def start(log_format: str | None = None, *, verbose: bool = False, **terminal: bool) -> tuple[Log, io.StringIO]:
        err = io.StringIO()
        arguments = argparse.Namespace(log_format=log_format, verbose=verbose)
        return start_log(arguments, Terminal(out=io.StringIO(), err=err, **terminal)), err

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("attestable_mcp").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def test_text_is_one_line_a_record_and_json_one_object(started) -> None:
    _, err = started()
    logging.getLogger("attestable_mcp.x").warning("two\nlines \x1b[31m")
    assert err.getvalue() == "attestable-mcp: two\\nlines \\x1b[31m\n"
    _, err = started(json=True)
    logging.getLogger("attestable_mcp.x").warning("a %s", "b")
    found = json.loads(err.getvalue())
    assert {key: found[key] for key in ("level", "logger", "message")} == {
        "level": "warning", "logger": "attestable_mcp.x", "message": "a b",
    }  # fmt: skip
    assert found["time"].endswith("Z")


def test_the_option_wins_over_json(started) -> None:
    _, err = started("text", json=True)
    logging.getLogger("x").error("plain")
    assert err.getvalue() == "attestable-mcp: plain\n"


def test_chatter_needs_verbose_and_libraries_stay_silent(started) -> None:
    _, err = started()
    TALK.info("for the user")
    logging.getLogger("attestable_mcp.x").info("chatter")
    assert err.getvalue() == "attestable-mcp: for the user\n"
    _, err = started(verbose=True)
    logging.getLogger("attestable_mcp.x").info("chatter")
    logging.getLogger("httpx2").info("GET https://secret.example")
    logging.getLogger("mcp.server").info("arguments")
    assert err.getvalue() == "attestable-mcp: chatter\n"


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exceptions_own_words_are_never_shown(started, debug: bool, log_format: str) -> None:
    _, err = started(log_format, debug=debug)
    try:
        try:
            raise ValueError("CANARY inner")
        except ValueError as inner:
            raise KeyError("CANARY outer") from inner
    except KeyError:
        logging.getLogger("somebody").exception("a fault")
    said = err.getvalue()
    assert "a fault" in said
    assert "KeyError" in said
    assert "ValueError" in said
    assert "CANARY outer" not in said.replace('raise KeyError("CANARY outer") from inner', "").replace(
        'raise KeyError(\\"CANARY outer\\") from inner', ""
    )
    assert ("test_an_exceptions_own_words" in said) is True


@pytest.mark.parametrize(
    ("message", "kept", "gone"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer", "abc.def-ghi"),
        ("basic dXNlcjpwYXNz sent", "sent", "dXNlcjpwYXNz"),
        ("POST access_token=s3cr3t&x=1", "x=1", "s3cr3t"),
        ('{"refresh_token": "rt-1234", "n": 1}', '"n": 1', "rt-1234"),
        ("GET /callback?code=xyz123&state=s", "state=s", "xyz123"),
        ("header k-value-1 seen", "header", "k-value-1"),
    ],
)
def test_secrets_are_replaced_whoever_writes_them(started, message: str, kept: str, gone: str) -> None:
    log, err = started()
    log.hide("k-value-1")
    logging.getLogger("stranger").warning(message)
    assert gone not in err.getvalue()
    assert kept in err.getvalue()
    assert "[hidden]" in err.getvalue()


def test_error_codes_are_no_secrets(started) -> None:
    log, err = started()
    log.hide("")
    log.hide("abc")
    logging.getLogger("x").warning("error code: -32010, exit code 3, abc")
    assert err.getvalue() == "attestable-mcp: error code: -32010, exit code 3, abc\n"


def test_a_record_that_cannot_be_shown_ends_nothing(started) -> None:
    _, err = started()
    logging.getLogger("x").warning("%d", "no number")
    assert "could not be shown" in err.getvalue()
