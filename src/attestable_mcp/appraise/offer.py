"""What a client demands of a server's offer and of its answers: `[manifest]` and `[receipts]` of a policy.

Silence is refusal here too: a policy that says nothing about manifests wants the server's evidence to commit to what it
lists, and takes no change while a conversation lasts. What is accepted beyond that has a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from attestable_mcp.appraise.fault import PolicyFault

ManifestMode = Literal["pinned", "signed", "any", "uncommitted"]
MODES: tuple[str, ...] = get_args(ManifestMode)
Unlisted = Literal["refuse", "danger-pass"]
UNLISTED: tuple[str, ...] = get_args(Unlisted)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPolicy:
    """Which tools, prompts and resources are accepted.

    `pinned`: those of `document`, or those of a manifest with this `digest` (64 hex digits). `signed`: those of a
    document that one of `keys` signed. `any`: whatever the server's evidence commits to when the conversation begins.
    `uncommitted`: whatever the server lists then, also if nothing proves it. None: as `any`, or as `uncommitted` under
    `freshness = "certificate"`, where no evidence can commit to anything. In every mode, what changes later is refused,
    save names that match a pattern of `dynamic` (`*` and `?`).

    `unlisted`: a call of a tool or prompt that the server never listed is refused, or, with `danger-pass`, sent all the
    same. What was promised and has changed or gone, and what is listed since, is refused either way.

    `document` is a path, or the JSON text itself. `keys` are paths of PEM public keys.

    Raises:
        ConfigurationError: a mode without what it needs, or with what it cannot use.
    """

    mode: ManifestMode | None = None
    digest: str = ""
    document: str = ""
    keys: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    unlisted: Unlisted = "refuse"

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise PolicyFault(f"wanted one of {', '.join(MODES)}, seen {self.mode!r}", "mode")
        if self.digest and not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise PolicyFault("wanted 64 lower-case hex digits", "digest")
        if self.mode == "pinned" and not (self.digest or self.document):
            raise PolicyFault("pinned to what? digest and document are both missing", "mode", hint=_PIN)
        if self.mode == "signed" and not self.keys:
            raise PolicyFault("signed by whom? keys are missing", "mode", hint="keys are paths of PEM public keys")
        if self.mode != "pinned" and self.digest:
            raise PolicyFault('a digest stands beside mode = "pinned" only', "digest")
        if self.mode not in ("pinned", "signed") and self.document:
            raise PolicyFault('a document stands beside mode = "pinned" or "signed" only', "document")
        if self.mode != "signed" and self.keys:
            raise PolicyFault('keys stand beside mode = "signed" only', "keys")
        if self.unlisted not in UNLISTED:
            raise PolicyFault(f"wanted one of {', '.join(UNLISTED)}, seen {self.unlisted!r}", "unlisted")
        if self.unlisted != "refuse" and self.mode in ("pinned", "signed"):
            raise PolicyFault(f'mode = "{self.mode}" names all that may be called; nothing else can pass', "unlisted")
        for index, pattern in enumerate(self.dynamic):
            if not isinstance(pattern, str) or not pattern.strip("*? "):
                raise PolicyFault(f"{pattern!r} would match every name", "dynamic", index)

    def is_dynamic(self, name: str) -> bool:
        """May an item of this name come, go and change?"""
        return any(fnmatchcase(name, pattern) for pattern in self.dynamic)


NO_OFFER = ("which tools the server offers: a certificate alone commits to no manifest",)


def left_open(policy: ManifestPolicy, committed: bytes) -> tuple[str, ...]:
    """What stays open of a server's offer, in sentences: for a result's `not_proven`.

    `committed` is what its live evidence commits to, or empty.
    """
    return (*_list_left_open(policy, committed), *unlisted_open(policy))


def unlisted_open(policy: ManifestPolicy) -> tuple[str, ...]:
    """The sentence for a policy that lets calls of unlisted tools pass; empty for any other."""
    if policy.unlisted == "refuse":
        return ()
    return (
        'calls of tools that the server never listed: the policy sends them ([manifest] unlisted = "danger-pass"), '
        "and no manifest covers them",
    )


def _list_left_open(policy: ManifestPolicy, committed: bytes) -> tuple[str, ...]:
    if not committed:
        return ("which tools the server offers: the evidence commits to no manifest",)
    if policy.mode == "pinned" and policy.digest:
        if committed.hex() == policy.digest:
            return ()
        return (
            f"the pinned tools: the server commits to the manifest {committed.hex()[:16]}…, the policy pins "
            f"{policy.digest[:16]}…; calls to what differs are refused",
        )
    if policy.mode in ("pinned", "signed"):
        return ()
    return ("whether the server's tools are the intended ones: the policy pins no [manifest]",)


_PIN = "`attestable-mcp pin URL` writes both from a running server"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptPolicy:
    """Whether each answer must carry a receipt, and where they are kept.

    `store` is the path of the file; empty for the user's own data folder.
    """

    required: bool = False
    store: str = ""
