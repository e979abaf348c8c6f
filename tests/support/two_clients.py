"""A server and two clients of it, as a policy names them: `billing` and `reports`, each known by its measurement."""

from __future__ import annotations

SERVER, BILLING, REPORTS = (bytes([n]) * 32 for n in (1, 2, 3))
TRUST = '[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n'
POLICY = f'{TRUST}[policy]\nmrenclave = "{SERVER.hex()}"\n'
"""What a client demands of the server."""
KNOWN = f"""{TRUST}
[[policy.accept]]
name = "billing"
mrenclave = "{BILLING.hex()}"
[[policy.accept]]
name = "reports"
mrenclave = "{REPORTS.hex()}"
"""
"""What the server knows of clients; `clients = "..."` stands before it, `[[tool]]` rules behind it."""
