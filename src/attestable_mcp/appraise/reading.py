"""Reads a policy file: TOML to `Policy`, with file and line in every message."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attestable_mcp.appraise.deployment import read_deployment
from attestable_mcp.appraise.kinds.base import PCRS, Kind, Read, Release, State
from attestable_mcp.appraise.kinds.intel import Grace
from attestable_mcp.appraise.kinds.table import KINDS, STATES
from attestable_mcp.appraise.lines import key_lines
from attestable_mcp.appraise.offer import ManifestPolicy, ReceiptPolicy
from attestable_mcp.appraise.platforms import PlatformRule
from attestable_mcp.appraise.policy import JUDGED, SERVICES, Places, Policy, Rules, TrustPolicy, split_anchor
from attestable_mcp.appraise.reattest import read_reattest
from attestable_mcp.appraise.section import PCR_NAME, Section
from attestable_mcp.appraise.tokens import PROFILES, TokenPolicy
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Tee


def load_policy(path: Path) -> Policy:
    """Read the policy file at `path`. Raises: ConfigurationError."""
    return read_policy(load_text(path), path.name, path.parent)


def load_text(path: Path) -> str:
    """The text of a policy file. Raises: ConfigurationError."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.policy_file + 1)
    except OSError as error:
        raise ConfigurationError(
            f"policy file {path}: {error.strerror or error}", hint="Check the path and who may read it."
        ) from error
    if len(data) > LIMITS.policy_file:
        raise ConfigurationError(f"policy file {path}: more than {LIMITS.policy_file} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path.name}, line {line}: not UTF-8 text") from error


def read_policy(text: str, name: str, base: Path | None = None) -> Policy:
    """Read the policy in `text`. Raises: ConfigurationError with file and line."""
    try:
        document = tomllib.loads(text)
        lines = key_lines(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(syntax(str(error), name, text), hint="Policies are TOML 1.0.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not a policy: {error}", hint="Policies are TOML 1.0.") from error
    places = Places(file=name, lines=MappingProxyType(lines))
    root = Section(places, (), document)
    policy = policy_of(root, name, base, places)
    root.finish()
    return policy


def policy_of(root: Section, name: str, base: Path | None, places: Places) -> Policy:
    """The policy in the tables of a file, which may hold others besides. Raises: ConfigurationError."""
    trust, policy = root.section("trust"), root.section("policy")
    manifest, receipts = root.section("manifest"), root.section("receipts")
    deployment = root.section("deployment") if "deployment" in root.left else None
    reattest = root.section("reattest") if "reattest" in root.left else None
    return Policy(
        name=name,
        trust=_trust(trust, base),
        rules=_rules(policy, base),
        manifest=_manifest(manifest, base),
        receipts=_receipts(receipts, base),
        places=places,
        reattest=read_reattest(reattest) if reattest is not None else None,
        deployment=read_deployment(deployment, str(base or "")) if deployment is not None else None,
    )


def syntax(message: str, name: str, text: str) -> str:
    """Turn tomllib's `… (at line 3, column 5)` into our shape."""
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:
        return f"{name}: {message}"
    line = found[1] or str(text.count("\n") + 1)
    return f"{name}, line {line}: {message[: found.start()]}"


def _trust(section: Section, base: Path | None) -> TrustPolicy:
    values: dict[str, Any] = {
        "anchors": section.texts("anchors"),
        "endorsements": section.texts("endorsements"),
        "freshness": section.text("freshness"),
        "max_certificate_age": section.seconds("max_certificate_age"),
        "binding": section.text("binding"),
        "max_age": section.seconds("max_age"),
        "simulated": section.text("simulated"),
    }
    tokens = tuple(_token(table, base) for table in section.sections("tokens"))
    section.finish()
    if tokens:
        values["tokens"] = tokens
    section.build(TrustPolicy, **values)  # as written, so that a fault shows what the file says
    values["endorsements"] = _resolve(values["endorsements"], ("stapled", *SERVICES), base)
    values["anchors"] = _resolve_anchors(values["anchors"], base)
    return section.build(TrustPolicy, **values)


def _token(section: Section, base: Path | None) -> TokenPolicy:
    values: dict[str, Any] = {name: section.text(name) for name in ("profile", "issuer", "keys", "root", "nonce")}
    values["audience"] = section.texts("audience", or_one=True)
    section.finish()
    if values["profile"] is None:
        raise section.fail(f"profile is missing: one of {', '.join(PROFILES)}")
    section.build(TokenPolicy, **values)
    for name in ("keys", "root"):
        if values[name] and "://" not in values[name]:
            values[name] = _path(values[name], base)
    return section.build(TokenPolicy, **values)


def _manifest(section: Section, base: Path | None) -> ManifestPolicy:
    values = {name: section.text(name) for name in ("mode", "digest", "document", "unlisted")}
    lists = {"keys": section.texts("keys", or_one=True), "dynamic": section.texts("dynamic", or_one=True)}
    section.finish()
    if not any(value is not None for value in (*values.values(), *lists.values())):
        return ManifestPolicy()
    section.build(ManifestPolicy, **values, **lists)
    if values["document"] and not values["document"].lstrip().startswith("{"):
        values["document"] = _path(values["document"], base)
    keys = None if lists["keys"] is None else tuple(_path(key, base) for key in lists["keys"])
    return section.build(ManifestPolicy, **values, **{**lists, "keys": keys})


def _receipts(section: Section, base: Path | None) -> ReceiptPolicy:
    required, store = section.flag("required"), section.text("store")
    section.finish()
    return section.build(ReceiptPolicy, required=required, store=_path(store, base) if store else None)


def _path(value: str, base: Path | None) -> str:
    return value if base is None else str((base / value).absolute())


def _resolve(values: Any, words: tuple[str, ...], base: Path | None) -> tuple[str, ...] | None:
    """Make relative paths absolute: a policy means the same wherever it is used from."""
    if values is None or base is None:
        return None if values is None else tuple(values)
    return tuple(value if value in words or "://" in value else str((base / value).absolute()) for value in values)


def _resolve_anchors(values: Any, base: Path | None) -> tuple[str, ...] | None:
    if values is None or base is None:
        return None if values is None else tuple(values)
    pairs = [split_anchor(value) for value in values]
    paths = [str((base / path).absolute()) if path else "" for _, path in pairs]
    return tuple("=".join(filter(None, (vendor, path))) for (vendor, _), path in zip(pairs, paths, strict=True))


def _rules(section: Section, base: Path | None) -> Rules:
    tee = _tee(section)
    values: dict[str, Any] = {
        "tee": tee,
        "debug": section.text("debug"),
        "tcb_statuses": section.texts("tcb_statuses"),
        "advisories": _advisories(section),
        "refused_advisories": section.texts("refused_advisories"),
        "grace": _grace(section),
        "min_tcb_evaluation_data_number": section.number("min_tcb_evaluation_data_number"),
        "platforms": _platforms(section, base),
    }
    states = tuple(state for state in (_state(section, kind) for kind in STATES) if state is not None)
    releases = _releases(section, tee)
    section.finish()
    return section.build(Rules, releases=releases, states=states, **values)


def _state(section: Section, kind: type[State]) -> State | None:
    """The rules of one family, if any key of theirs is there."""
    values = {name: section.read(name, read) for name, read in kind.READ.items()}
    given = {name: value for name, value in values.items() if value is not None}
    return section.build(kind, **given) if given else None


def _tee(section: Section) -> Tee | None:
    word = section.text("tee")
    if word is not None and word not in JUDGED:
        raise section.fail(f"wanted one of {', '.join(JUDGED)}, seen {word!r}", "tee")
    return None if word is None else Tee(word)


def _platforms(section: Section, base: Path | None) -> PlatformRule | None:
    if "platforms" not in section.left:
        section.known.append("platforms")
        return None
    table = section.section("platforms")
    values = {"file": table.text("file"), "key": table.text("key")}
    table.finish()
    for key in (key for key, value in values.items() if value is None):
        raise table.fail(f"{key} is missing", key, hint='platforms = { file = "list.pem", key = "hash of the signer" }')
    made = table.build(PlatformRule, **values)
    return table.build(PlatformRule, file=_path(made.file, base), key=made.key)


def _grace(section: Section) -> tuple[Grace, ...] | None:
    found = []
    for table in section.sections("grace"):
        values = {"status": table.text("status"), "until": table.moment("until")}
        table.finish()
        for key in (key for key, value in values.items() if value is None):
            raise table.fail(f"{key} is missing", key)
        found.append(table.build(Grace, **values))
    return tuple(found) or None


def _advisories(section: Section) -> tuple[str, ...] | None:
    """A list of accepted advisories, or the word "none": an empty list would be silence."""
    if section.left.get("advisories") == "none":
        section.text("advisories")
        return ()
    return section.texts("advisories")


def _releases(section: Section, tee: Tee | None) -> tuple[Release, ...]:
    """The one release named in [policy] itself, or those of the [[policy.accept]] tables."""
    here = _release(section, tee=tee)
    tables = section.sections("accept")
    if here is not None and tables:
        raise section.fail("code is named in [policy] as well; move it into a table of its own", "accept")
    if here is not None:
        return (here,)
    releases = []
    for table in tables:
        release = _release(table, label=table.text("name"), tee=_tee(table))
        table.finish()
        if release is None:
            raise table.fail(
                "no identity rule in this table", hint="mrenclave, mr_td with rtmr0 to rtmr3, measurement, PCRs …"
            )
        releases.append(release)
    return tuple(releases)


_IDENTITY: dict[str, Read] = {key: read for kind in KINDS.values() for key, read in kind.keys.items()}
"""Every key that names code, of all kinds."""


def _release(section: Section, label: str | None = None, tee: Tee | None = None) -> Release | None:
    values = {key: section.read(key, read) for key, read in _IDENTITY.items()}
    given = {key: value for key, value in values.items() if value is not None}
    if not given:
        return None
    kind = _kind_of(section, tuple(given), tee)
    make: type[Release] = kind.release
    return section.build(make, label=label, **given)


def _kind_of(section: Section, given: tuple[str, ...], tee: Tee | None) -> Kind:
    """The one kind that has all these keys, and its own head among them."""
    fitting = [kind for kind in KINDS.values() if set(given) <= set(kind.keys) and tee in (None, kind.tee)]
    if not fitting:
        raise _odd(section, given, tee)
    whole = [kind for kind in fitting if all(group & set(given) for group in kind.heads)]
    if len(whole) == 1:
        return whole[0]
    first = _written(section, given[0])
    if whole:
        names = ", ".join(f'"{kind.tee}"' for kind in whole)
        raise section.fail(f"this key is of several kinds: say which with tee, one of {names}", first)
    missing = next(group for group in fitting[0].heads if not group & set(given))
    raise section.fail(f"{' or '.join(sorted(missing))} is missing beside it", first)


def _odd(section: Section, given: tuple[str, ...], tee: Tee | None) -> ConfigurationError:
    if tee is not None:
        odd = next(key for key in given if key not in KINDS[tee].keys)
        return section.fail(f"tee is {tee}, but {_written(section, odd)} is of another kind", "tee")
    first = given[0]
    odd = next(key for key in given if not _kinds_with(first) & _kinds_with(key))
    names = [", ".join(sorted(_kinds_with(key))) for key in (odd, first)]
    shown = [_written(section, key) for key in (odd, first)]
    return section.fail(f"{shown[0]} is of {names[0]}, {shown[1]} of {names[1]}: one release is of one kind", shown[0])


def _kinds_with(key: str) -> set[str]:
    return {str(kind.tee) for kind in KINDS.values() if key in kind.keys}


def _written(section: Section, key: str) -> str:
    """The key as it stands in the file: for PCRs the first of them."""
    return next((name for name in section.known if PCR_NAME.fullmatch(name)), key) if key == PCRS else key
