"""Why a server's lists cannot be read: by the status of its last answer, with the step that fits."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import pytest

from attestable_mcp.mcp.lister import NoLists, Reply, read_manifest


def told(status: int) -> NoLists:
    async def ask(method: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        return Reply(status=status, body=b"{}")

    with pytest.raises(NoLists) as caught:
        anyio.run(read_manifest, ask)
    return caught.value


@pytest.mark.parametrize(
    ("status", "step"),
    [(401, "--header-env"), (403, "--attester NAME"), (404, "/mcp"), (502, "not be up yet"), (415, "authorization")],
)
def test_the_status_is_told_with_a_step_that_fits(status: int, step: str) -> None:
    error = told(status)
    assert error.message.endswith(f"(HTTP {status})")
    assert step in error.hint


@pytest.mark.parametrize("status", [0, 200])
def test_an_answer_without_a_status_of_note_is_told_without_one(status: int) -> None:
    assert told(status).message == "the server answers neither server/discover nor initialize"
