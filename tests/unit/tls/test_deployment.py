"""What a server's log says of its grant's end, before clients do."""

from __future__ import annotations

import itertools
import logging
import time
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestable_mcp.bind.deployment import sign_grant, spki_of
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.wire.grant import GRANT_LABEL, Grant, to_pem


def test_that_a_grant_ends_and_has_ended_is_told_once_each(tmp_path, caplog):
    owner, now = Ed25519PrivateKey.generate(), datetime.now(UTC).replace(microsecond=0)
    ticks = itertools.count(step=10.0)
    holder = DeploymentHolder(spki_of(owner), grant_file=tmp_path / "grant.pem", clock=lambda: next(ticks))

    def granted(serial: int, lasts: timedelta) -> None:
        grant = Grant(
            owner=spki_of(owner), name="prod", hosts=("h",), key=holder.key.spki_sha256, serial=serial,
            not_before=now - timedelta(hours=1), not_after=now + lasts,
        )  # fmt: skip
        (tmp_path / "grant.pem").write_bytes(to_pem(GRANT_LABEL, sign_grant(owner, grant)) + b"\n" * serial)

    def told() -> list[str]:
        caplog.clear()
        assert holder.deployment is not None
        assert holder.deployment is not None
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    granted(1, timedelta(days=1))
    assert told() == []
    granted(2, timedelta(seconds=2))
    (near,) = told()
    assert near.startswith("the grant for 'prod' ends at ")
    assert "attestable-mcp owner renew" in near
    time.sleep(max(0.0, (now + timedelta(seconds=2) - datetime.now(UTC)).total_seconds()) + 0.05)
    (over,) = told()
    assert over.startswith("the grant for 'prod' ended at ")
    granted(3, timedelta(days=1))
    assert told() == []
