"""What sources answered, kept while a verdict comes about, and answered again where it is replayed."""

from __future__ import annotations

from collections.abc import Sequence

from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import EndorsementUnavailable
from attestable_mcp.rats import EndorsementQuery, Endorsements
from attestable_mcp.wire.bundle import Refusal, SourceAnswer


class Tape:
    """The answers so far, one for each source and question."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str, tuple[tuple[str, str], ...]], SourceAnswer] = {}

    def keep(self, source: str, query: EndorsementQuery, answer: Endorsements | Refusal) -> None:
        """Remember what `source` said to `query`; the same question again has the same answer."""
        self.answers[_key(source, query)] = SourceAnswer(source=source, query=query, answer=answer)

    def recording(self, sources: Sequence[EndorsementSource]) -> tuple[EndorsementSource, ...]:
        """The same sources, with every answer kept."""
        return tuple(_Recorder(source, self) for source in sources)


class _Recorder:
    def __init__(self, source: EndorsementSource, tape: Tape) -> None:
        self._source = source
        self._tape = tape

    @property
    def name(self) -> str:
        return self._source.name

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float) -> Endorsements:
        try:
            found = self._source.fetch(query, deadline_seconds=deadline_seconds)
        except EndorsementUnavailable as error:
            self._tape.keep(self.name, query, Refusal(code=error.code, message=error.message, hint=error.hint))
            raise
        self._tape.keep(self.name, query, found)
        return found


def replaying(names: Sequence[str], answers: Sequence[SourceAnswer]) -> tuple[EndorsementSource, ...]:
    """Sources of these names that give the recorded answers and ask nobody."""
    known = {_key(item.source, item.query): item.answer for item in answers}
    return tuple(_Player(name, known) for name in names)


class _Player:
    def __init__(
        self, name: str, known: dict[tuple[str, str, tuple[tuple[str, str], ...]], Endorsements | Refusal]
    ) -> None:
        self._name = name
        self._known = known

    @property
    def name(self) -> str:
        return self._name

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float) -> Endorsements:
        answer = self._known.get(_key(self._name, query))
        if answer is None:
            raise EndorsementUnavailable("this was not asked when the bundle was made, and a replay asks nobody")
        if isinstance(answer, Refusal):
            raise EndorsementUnavailable(answer.message, code=answer.code, hint=answer.hint)
        return answer


def _key(source: str, query: EndorsementQuery) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return source, str(query.tee), tuple(sorted(query.parameters.items()))
