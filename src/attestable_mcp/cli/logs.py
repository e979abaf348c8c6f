"""What a verb that stays says on stderr: one line a record, as text or JSON, without anybody's content or secrets.

stdout is never written here. Exceptions are shown by kind and place, with `--debug` with the whole way there, but never
in their own words, which may quote an argument or a result. Header values and tokens are replaced wherever they appear.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from datetime import UTC, datetime

from attestable_mcp.cli import text
from attestable_mcp.cli import text_connect as words
from attestable_mcp.cli.command import Arguments, Parser
from attestable_mcp.cli.terminal import Terminal, printable

_HIDDEN = "[hidden]"
_PATTERNS = (
    re.compile(r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(
        r"""(?i)\b((?:access_token|refresh_token|client_secret|code_verifier)["']?\s*[=:]\s*["']?)[^&\s"',}]+"""
    ),
    re.compile(r"([?&]code=)[^&\s\"']+"),
)
_OTHERS = ("httpx2", "httpcore2", "mcp", "uvicorn", "asyncio", "anyio", "keyring", "opentelemetry")
"""Libraries whose chatter below warnings is never wanted: it holds addresses, headers or messages."""
NOTICE = 25
"""Between information and warning: what a person should look at once."""
TALK = logging.getLogger("attestable_mcp.talk")
"""What the user of a verb must know; always shown, unlike the chatter of `--verbose`."""
_CAUSES = 4
_LEAST = 6
"""Shorter secrets are not searched for: they would blot out ordinary words."""


def add_logs(parser: Parser) -> None:
    """`--log-format text|json`, `--verbose`."""
    group = parser.add_argument_group(words.GROUP_LOGS)
    group.add_argument("--log-format", choices=("text", "json"), help=words.HELP_LOG_FORMAT)
    group.add_argument("--verbose", action="store_true", help=words.HELP_VERBOSE)


class _Waits(logging.Handler):
    """Shows a person why nothing happens: a service makes us wait for our turn."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """One line on stderr."""
        self._terminal.say(f"{text.PROGRAM}: {printable(record.getMessage())}")


def show_waits(terminal: Terminal) -> None:
    """Long waits for a service are told on stderr by every verb."""
    waits = logging.getLogger("attestable_mcp.endorse.throttle")
    waits.handlers = [_Waits(terminal)]
    waits.setLevel(logging.INFO)


class Log(logging.Handler):
    """The root handler of this process. `hide` takes a secret that must not appear, whoever writes it."""

    def __init__(self, terminal: Terminal, *, as_json: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self._json = as_json
        self._secrets: list[str] = []

    def hide(self, secret: str) -> None:
        """Never show this text. The most recent few hundred are kept."""
        if len(secret) >= _LEAST and secret not in self._secrets:
            self._secrets = [secret, *self._secrets[:255]]

    def emit(self, record: logging.LogRecord) -> None:
        """One line on stderr."""
        try:
            self._terminal.say(self._line(record))
        except Exception:  # noqa: BLE001 - a record that cannot be shown must not end what logged it
            self._terminal.say(f"{text.PROGRAM}: a log record of {record.name} could not be shown")

    def _line(self, record: logging.LogRecord) -> str:
        message = self._clean(record.getMessage())
        fault = self._clean(self._fault(record))
        if self._json:
            found = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
            return json.dumps({**found, "message": message, **({"error": fault} if fault else {})})
        shown = f"{text.PROGRAM}: {printable(message)}"
        if fault:
            shown += "\n" + "\n".join(f"  {printable(line)}" for line in fault.splitlines())
        return shown

    def _fault(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        told: list[str] = []
        while error is not None and len(told) < _CAUSES:
            told.append(_kind(error, whole=self._terminal.debug))
            error = error.__cause__
        return "\n".join(told)

    def _clean(self, said: str) -> str:
        for secret in self._secrets:
            said = said.replace(secret, _HIDDEN)
        for pattern in _PATTERNS:
            said = pattern.sub(rf"\1{_HIDDEN}", said)
        return said


def _kind(error: BaseException, *, whole: bool) -> str:
    """Its class and where it was raised, with `whole` all the way there; never its words."""
    frames = traceback.extract_tb(error.__traceback__)
    if whole:
        return "".join([*traceback.format_list(frames), type(error).__name__])
    place = f" in {frames[-1].name} ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{place}"


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def start_log(arguments: Arguments, terminal: Terminal) -> Log:
    """Take over the root logger, before anything else of this process sets one up."""
    chosen = arguments.log_format or ("json" if terminal.json else "text")
    log = Log(terminal, as_json=chosen == "json")
    root = logging.getLogger()
    root.handlers[:] = [log]
    root.setLevel(logging.INFO if arguments.verbose else logging.WARNING)
    logging.getLogger("attestable_mcp").setLevel(logging.DEBUG if terminal.debug else logging.NOTSET)
    for name in _OTHERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    TALK.setLevel(logging.INFO)
    logging.addLevelName(NOTICE, "NOTICE")
    logging.captureWarnings(True)
    return log
