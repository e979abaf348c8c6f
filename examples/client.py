"""A client that proves the server before it speaks: python client.py https://127.0.0.1:8443/mcp policy.toml"""

import asyncio
import sys

from attestable_mcp import AttestationError, Policy, attested_client


async def main(url: str, policy_file: str) -> None:
    """Call one tool, or say why not."""
    try:
        async with attested_client(url, policy=Policy.load(policy_file)) as client:
            print(client.attestation.verdict, *client.attestation.not_proven, sep="\n  not proven: ")
            answer = await client.call_tool("add", {"a": 2, "b": 3})
            print(answer.content[0].text)
    except AttestationError as refusal:
        sys.exit(f"{refusal.code}: {refusal.message}\n{refusal.hint}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
