"""Policies: what they mean, and that bad ones name file and line."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.appraise.kinds.azure import AzureSnpRelease, AzureTdxRelease
from attestable_mcp.appraise.kinds.table import KINDS, STATES
from attestable_mcp.appraise.policy import (
    ACCEPTABLE_STATUSES,
    MaskedValue,
    NitroRelease,
    Policy,
    Rules,
    SgxRelease,
    SgxRules,
    SnpRelease,
    SnpRules,
    TdxRelease,
    TdxRules,
    TokenPolicy,
    TpmRelease,
    TrustPolicy,
    masked,
)  # fmt: skip
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Tee

MRENCLAVE = "aa" * 32
IDENTITY = f'mrenclave = "{MRENCLAVE}"'
TDX = "\n".join(
    f'{name} = "{byte * 48}"'
    for name, byte in {"mr_td": "a1", "rtmr0": "b0", "rtmr1": "b1", "rtmr2": "b2", "rtmr3": "b3"}.items()
)


def test_the_smallest_policy_has_the_strict_defaults() -> None:
    policy = Policy.from_toml(f"[policy]\n{IDENTITY}\n", "prod.toml")
    assert policy.trust == TrustPolicy()
    assert policy.trust.anchors == ("intel", "amd", "aws", "tpm")
    assert policy.trust.endorsements == ("stapled", "pcs", "kds")
    assert (policy.trust.freshness, policy.trust.binding, policy.trust.simulated) == ("connection", "key", "refuse")
    assert policy.trust.max_age == 600
    assert policy.rules.tcb_statuses == ("UpToDate", "SWHardeningNeeded")
    assert policy.rules.debug == "refuse"
    assert policy.rules.releases == (SgxRelease(mrenclave=MRENCLAVE),)
    assert policy.name == "prod.toml"


FULL = f"""
[trust]
anchors = ["intel", "roots/own.pem"]
endorsements = ["stapled", "https://pccs.example:8081", "./bundle"]
freshness = "certificate"
max_certificate_age = "2d"
binding = "quote"
max_age = 90
simulated = "accept"

[policy]
tcb_statuses = ["UpToDate", "OutOfDate"]
advisories = ["INTEL-SA-00828"]
refused_advisories = ["INTEL-SA-00837"]
min_tcb_evaluation_data_number = 17
debug = "danger-accept"
sept_ve_disable = "accept-clear"
service_td = "accept"
migratable = "accept"
mr_seam = ["{"5E" * 48}", "{"5f" * 48}"]
mr_config_id = "{"00" * 48}"
td_attributes = "0000001000000000"
xfam = "e702060000000000"
xfam_mask = "ffffffffffffffff"
attributes = "0500000000000000e700000000000000"

[[policy.accept]]
name = "enclave 4"
mrsigner = "{"BB" * 32}"
isvprodid = 7
min_isvsvn = 0

[[policy.accept]]
name = "machine 2"
tee = "tdx"
{TDX.replace("rtmr0", "# rtmr0")}
not_compared = ["rtmr0"]
"""


def test_a_full_policy_is_read_field_by_field(tmp_path: Path) -> None:
    path = tmp_path / "full.toml"
    path.write_text(FULL)
    policy = Policy.load(path)
    assert policy.trust == TrustPolicy(
        anchors=("intel", str(tmp_path / "roots/own.pem")),
        endorsements=("stapled", "https://pccs.example:8081", str(tmp_path / "bundle")),
        freshness="certificate", max_certificate_age=172800.0, binding="quote", max_age=90.0, simulated="accept",
    )  # fmt: skip
    rules = policy.rules
    assert rules.tcb_statuses == ("UpToDate", "OutOfDate")
    assert (rules.advisories, rules.refused_advisories) == (("INTEL-SA-00828",), ("INTEL-SA-00837",))
    assert rules.min_tcb_evaluation_data_number == 17
    tdx = rules.state(TdxRules)
    assert (rules.debug, tdx.sept_ve_disable, tdx.service_td, tdx.migratable) == (
        "danger-accept", "accept-clear", "accept", "accept",
    )  # fmt: skip
    assert tdx.mr_seam == ("5e" * 48, "5f" * 48)
    assert tdx.mr_config_id == ("00" * 48,)
    assert tdx.td_attributes == MaskedValue(value="0000001000000000", mask="f" * 16)
    assert rules.state(SgxRules).attributes == MaskedValue(value="0500000000000000e700000000000000", mask="f" * 32)
    assert rules.state(SnpRules) == SnpRules()
    assert rules.releases == (
        SgxRelease(label="enclave 4", mrsigner="bb" * 32, isvprodid=7, min_isvsvn=0),
        TdxRelease(
            label="machine 2",
            mr_td="a1" * 48,
            rtmr1="b1" * 48,
            rtmr2="b2" * 48,
            rtmr3="b3" * 48,
            not_compared=("rtmr0",),
        ),
    )


def test_advisories_none_means_that_none_is_accepted() -> None:
    assert Policy.from_toml(f'[policy]\n{IDENTITY}\nadvisories = "none"').rules.advisories == ()
    assert Policy.from_toml(f"[policy]\n{IDENTITY}").rules.advisories is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("45", 45), ('"45"', 45), ('"45s"', 45), ('"10m"', 600), ('"2h"', 7200), ('"1d"', 86400)]
)
def test_ages(text: str, seconds: float) -> None:
    assert Policy.from_toml(f"[trust]\nmax_age = {text}\n[policy]\n{IDENTITY}").trust.max_age == seconds


def test_certificate_freshness_always_has_an_age_limit() -> None:
    assert TrustPolicy().certificate_age_limit is None
    assert TrustPolicy(freshness="certificate").certificate_age_limit == LIMITS.certificate_max_age
    assert TrustPolicy(max_certificate_age=5).certificate_age_limit == 5


# Each: the text, the line that the message must name, words that it must hold.
BAD: dict[str, tuple[str, int | None, str]] = {
    "empty file": ("", None, "no identity rule"),
    "empty policy": ("\n[policy]\n", 2, "no identity rule"),
    "no policy table": ('[trust]\nanchors = ["intel"]', None, "no identity rule"),
    "only platform rules": ('[policy]\ntcb_statuses = ["UpToDate"]', 1, "no identity rule"),
    "unknown table": (f"[policy]\n{IDENTITY}\n[polcy]\n", 3, "unknown key"),
    "a policy for clients": (f"clients = 'none'\n[policy]\n{IDENTITY}\n", 1, "clients: stands in a policy for clients"),
    "unknown top key": (f"x = 1\n[policy]\n{IDENTITY}\n", 1, "x: unknown key"),
    "unknown trust key": (f"[trust]\n\nanchor = ['intel']\n[policy]\n{IDENTITY}", 3, "trust.anchor: unknown key"),
    "unknown policy key": (f"[policy]\n{IDENTITY}\nmrencalve = 'x'", 3, "policy.mrencalve: unknown key"),
    "unknown accept key": (f"[[policy.accept]]\n{IDENTITY}\n[[policy.accept]]\n{IDENTITY}\nx = 1", 5, "unknown key"),
    "rule in accept": (f"[[policy.accept]]\n{IDENTITY}\ndebug = 'refuse'", 3, "policy.accept.debug: unknown key"),
    "dotted unknown": (f"policy.{IDENTITY}\npolicy.nope = 1", 2, "unknown key"),
    "inline unknown": (f"policy = {{ {IDENTITY}, nope = 1 }}", 1, "unknown key"),
    "policy no table": ("\npolicy = 1", 2, "wanted a table"),
    "accept no table": ("[policy]\naccept = ['x']", 2, "wanted [[policy.accept]]"),
    "empty accept": ("[policy]\naccept = []", 2, "empty"),
    "accept without identity": (f"[[policy.accept]]\n{IDENTITY}\n[[policy.accept]]\nname = 'x'", 3, "no identity rule"),
    "both ways": (f"[policy]\n{IDENTITY}\n[[policy.accept]]\n{IDENTITY}", 3, "policy.accept"),
    "empty mrenclave": ("[policy]\nmrenclave = ''", 2, "empty"),
    "blank status": (f"[policy]\n{IDENTITY}\ntcb_statuses = [' ']", 3, "wanted a word"),
    "short hex": ("[policy]\nmrenclave = 'aabb'", 2, "wanted 64 hex digits (32 bytes), seen 4"),
    "long hex": (f"[policy]\nmrenclave = '{'a' * 66}'", 2, "seen 66"),
    "prefixed hex": (f"[policy]\nmrenclave = '0x{'a' * 62}'", 2, "wanted hex digits"),
    "no hex": (f"[policy]\nmrenclave = '{'g' * 64}'", 2, "wanted hex digits"),
    "foreign digits": (f"[policy]\nmrenclave = '{'١' * 64}'", 2, "wanted hex digits"),
    "number as hex": ("[policy]\nmrenclave = 12", 2, "wanted a string, seen a number"),
    "list as hex": (f"[policy]\nmrenclave = ['{MRENCLAVE}']", 2, "wanted a string, seen a list"),
    "bool as hex": ("[policy]\nmrenclave = true", 2, "seen a boolean"),
    "signer alone": (f"[policy]\n\nmrsigner = '{MRENCLAVE}'", 3, "missing: isvprodid, min_isvsvn"),
    "signer without svn": (f"[policy]\nisvprodid = 1\nmrsigner = '{MRENCLAVE}'", 3, "missing: min_isvsvn"),
    "product alone": (f"[policy]\n{IDENTITY}\nisvprodid = 1", 3, "missing: mrsigner, min_isvsvn"),
    "big product": (f"[policy]\nmrsigner='{MRENCLAVE}'\nisvprodid = 65536\nmin_isvsvn = 1", 3, "from 0 to 65535"),
    "negative svn": (f"[policy]\nmrsigner='{MRENCLAVE}'\nisvprodid = 1\nmin_isvsvn = -1", 4, "from 0 to 65535"),
    "svn as text": (f"[policy]\nmrsigner='{MRENCLAVE}'\nisvprodid = 1\nmin_isvsvn = '1'", 4, "wanted a whole number"),
    "svn as bool": (f"[policy]\nmrsigner='{MRENCLAVE}'\nisvprodid = 1\nmin_isvsvn = true", 4, "wanted a whole number"),
    "mr_td alone": (f"[policy]\nmr_td = '{'a' * 96}'", 2, "rtmr0 is missing"),
    "rtmr alone": (f"[policy]\nrtmr1 = '{'a' * 96}'", 2, "mr_td is missing"),
    "rtmr short": (f"[policy]\n{TDX}".replace("b2" * 48, "b2"), 5, "policy.rtmr2: wanted 96 hex digits"),
    "rtmr both": (f"[policy]\n{TDX}\nnot_compared = ['rtmr3']", 6, "not_compared as well"),
    "not_compared unknown": (f"[policy]\n{TDX}\nnot_compared = [\n'mr_td']", 8, "wanted names out of"),
    "two kinds": (f"[policy]\n{IDENTITY}\n{TDX}", 3, "one release is of one kind"),
    "tee wrong": (f"[policy]\ntee = 'snp'\n{IDENTITY}", 2, "wanted one of sgx, tdx"),
    "tee other": (f"[policy]\n{IDENTITY}\ntee = 'tdx'", 3, "mrenclave is of another kind"),
    "accept tee other": (f"[[policy.accept]]\n{IDENTITY}\ntee = 'tdx'", 3, "mrenclave is of another kind"),
    "revoked": (f"[policy]\n{IDENTITY}\ntcb_statuses = [\n'UpToDate',\n'Revoked']", 5, "Revoked can never be accepted"),
    "status unknown": (f"[policy]\n{IDENTITY}\ntcb_statuses = ['uptodate']", 3, "no TCB status"),
    "statuses empty": (f"[policy]\n{IDENTITY}\ntcb_statuses = []", 3, "empty"),
    "statuses text": (f"[policy]\n{IDENTITY}\ntcb_statuses = 'UpToDate'", 3, "wanted a list"),
    "status number": (f"[policy]\n{IDENTITY}\ntcb_statuses = ['UpToDate',\n1]", 4, "wanted a string"),
    "status twice": (f"[policy]\n{IDENTITY}\ntcb_statuses = ['UpToDate',\n'UpToDate']", 4, "twice"),
    "advisories empty": (f"[policy]\n{IDENTITY}\nadvisories = []", 3, "empty"),
    "advisories word": (f"[policy]\n{IDENTITY}\nadvisories = 'all'", 3, "wanted a list"),
    "advisory both": (
        f"[policy]\n{IDENTITY}\nadvisories = ['A']\nrefused_advisories = ['A']", 4, "both accepted and refused"
    ),
    "evaluation zero": (f"[policy]\n{IDENTITY}\nmin_tcb_evaluation_data_number = 0", 3, "from 1"),
    "evaluation float": (f"[policy]\n{IDENTITY}\nmin_tcb_evaluation_data_number = 1.0", 3, "wanted a whole number"),
    "debug word": (f"[policy]\n{IDENTITY}\ndebug = 'accept'", 3, "wanted one of refuse, danger-accept"),
    "debug bool": (f"[policy]\n{IDENTITY}\ndebug = true", 3, "wanted a string"),
    "sept word": (f"[policy]\n{TDX}\nsept_ve_disable = 'no'", 7, "wanted one of require, accept-clear"),
    "service word": (f"[policy]\n{TDX}\nservice_td = 'yes'", 7, "wanted one of refuse, accept"),
    "tdx rule for sgx": (f"[policy]\n{IDENTITY}\nmr_seam = '{'a' * 96}'", 3, "no TDX code is named"),
    "sgx rule for tdx": (f"[policy]\n{TDX}\nattributes = '{'0' * 32}'", 7, "no SGX code is named"),
    "seam short": (f"[policy]\n{TDX}\nmr_seam = [\n'{'a' * 96}',\n'aa']", 9, "wanted 96 hex digits"),
    "mask alone": (f"[policy]\n{TDX}\nxfam_mask = 'ff'", 7, "a mask without xfam"),
    "mask short": (f"[policy]\n{TDX}\nxfam = '{'0' * 16}'\nxfam_mask = 'ff'", 8, "wanted 16 hex digits"),
    "mask zero": (f"[policy]\n{TDX}\nxfam = '{'0' * 16}'\nxfam_mask = '{'0' * 16}'", 8, "compares nothing"),
    "outside mask": (f"[policy]\n{TDX}\nxfam = '{'f' * 16}'\nxfam_mask = '{'1' * 16}'", 7, "the mask leaves out"),
    "anchors empty": (f"[trust]\nanchors = []\n[policy]\n{IDENTITY}", 2, "empty"),
    "anchor word": (f"[trust]\nanchors = ['intel',\n'intle']\n[policy]\n{IDENTITY}", 3, "intle"),
    "anchor url": (f"[trust]\nanchors = ['https://x/y.pem']\n[policy]\n{IDENTITY}", 2, "wanted"),
    "anchors text": (f"[trust]\nanchors = 'intel'\n[policy]\n{IDENTITY}", 2, "wanted a list"),
    "source word": (f"[trust]\nendorsements = ['psc']\n[policy]\n{IDENTITY}", 2, "psc"),
    "source scheme": (f"[trust]\nendorsements = ['ftp://x.y/']\n[policy]\n{IDENTITY}", 2, "ftp"),
    "freshness word": (f"[trust]\nfreshness = 'none'\n[policy]\n{IDENTITY}", 2, "wanted one of connection"),
    "binding word": (f"[trust]\nbinding = 'no'\n[policy]\n{IDENTITY}", 2, "wanted one of key, quote"),
    "simulated bool": (f"[trust]\nsimulated = true\n[policy]\n{IDENTITY}", 2, "wanted a string"),
    "simulated word": (f"[trust]\nsimulated = 'yes'\n[policy]\n{IDENTITY}", 2, "wanted one of refuse, accept"),
    "age zero": (f"[trust]\nmax_age = 0\n[policy]\n{IDENTITY}", 2, "above zero"),
    "age negative": (f"[trust]\nmax_age = -1\n[policy]\n{IDENTITY}", 2, "above zero"),
    "age beyond the calendar": (f"[trust]\nmax_age = '99999999d'\n[policy]\n{IDENTITY}", 2, "at most 36500 days"),
    "age unit": (f"[trust]\nmax_age = '10 minutes'\n[policy]\n{IDENTITY}", 2, "wanted seconds"),
    "age infinite": (f"[trust]\nmax_age = inf\n[policy]\n{IDENTITY}", 2, "wanted seconds"),
    "age bool": (f"[trust]\nmax_certificate_age = true\n[policy]\n{IDENTITY}", 2, "wanted seconds"),
    "toml syntax": (f"[policy]\n{IDENTITY}\ndebug = \n", 3, "Invalid value"),
    "toml open end": ("[policy]\nmrenclave = '''\naa\n", 4, ""),
    "key twice": (f"[policy]\n{IDENTITY}\n{IDENTITY}\n", 3, "overwrite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_policy_names_file_and_line(name: str) -> None:
    text, line, words = BAD[name]
    with pytest.raises(ConfigurationError) as caught:
        Policy.from_toml(text, "prod.toml")
    start = "prod.toml: " if line is None else f"prod.toml, line {line}: "
    assert caught.value.message.startswith(start), caught.value.message
    assert words in caught.value.message
    assert caught.value.code == "configuration"
    assert caught.value.exit_code == 1


def test_deep_nesting_is_an_error_of_ours() -> None:
    with pytest.raises(ConfigurationError):
        Policy.from_toml("a = " + "[" * 100_000, "deep.toml")


def test_a_number_too_long_for_python_is_an_error_of_ours() -> None:
    with pytest.raises(ConfigurationError, match=r"^long\.toml"):
        Policy.from_toml("a = " + "9" * 5000, "long.toml")


@pytest.mark.parametrize("content", [None, b"\xff\xfe[policy]", b"#" * (LIMITS.policy_file + 1)])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "prod.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"prod\.toml"):
        Policy.load(path)
    with pytest.raises(ConfigurationError):
        Policy.load(tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rules(),
        lambda: Policy(rules=Rules(releases=())),
        lambda: SgxRelease(),
        lambda: SgxRelease(mrenclave=""),
        lambda: SgxRelease(mrsigner="bb" * 32),
        lambda: SgxRelease(mrsigner="bb" * 32, isvprodid=1),
        lambda: TdxRelease(mr_td="aa" * 48),
        lambda: TdxRelease(mr_td="", not_compared=("rtmr0", "rtmr1", "rtmr2", "rtmr3")),
        lambda: Rules(releases=(SgxRelease(mrenclave=MRENCLAVE),), tcb_statuses=("Revoked",)),
        lambda: Rules(releases=(SgxRelease(mrenclave=MRENCLAVE),), tcb_statuses=()),
        lambda: Rules(releases=(SgxRelease(mrenclave=MRENCLAVE),), code_not_compared=True),
        lambda: Rules(releases=("anything",)),  # type: ignore[arg-type]
        lambda: Rules(code_not_compared=True, debug="danger-accept"),
        lambda: SgxRules(attributes="05" * 16),  # type: ignore[arg-type]
        lambda: Rules(releases=(SgxRelease(mrenclave=MRENCLAVE),), tee=Tee.TDX),
        lambda: Rules(releases=(SgxRelease(mrenclave=MRENCLAVE),), states=("strict",)),  # type: ignore[arg-type]
        lambda: Rules(releases=(SgxRelease(mrenclave=MRENCLAVE),), states=(SgxRules(), SgxRules())),
        lambda: Rules(releases=(SgxRelease(mrenclave=MRENCLAVE),), states=(SnpRules(smt="refuse"),)),
        lambda: Policy(rules=Rules(releases=(NitroRelease(pcrs={0: "aa" * 48}),), tcb_statuses=("OutOfDate",))),
        lambda: SnpRelease(),
        lambda: SnpRelease(id_key_digest="1d" * 48),
        lambda: SnpRelease(id_key_digest="00" * 48, min_guest_svn=1),
        lambda: SnpRules(products=()),
        lambda: SnpRules(products=("Rome",)),
        lambda: SnpRules(vmpl=(4,)),
        lambda: SnpRules(min_tcb_snp=256),
        lambda: NitroRelease(),
        lambda: NitroRelease(pcrs={3: "aa" * 48}),
        lambda: NitroRelease(pcrs={0: "00" * 48}),
        lambda: NitroRelease(pcrs={0: "aa" * 32}),
        lambda: TpmRelease(),
        lambda: TpmRelease(pcrs={16: "aa" * 32}),
        lambda: TpmRelease(pcrs={23: "aa" * 32}),
        lambda: TpmRelease(pcrs={4: "aa" * 20}),
        lambda: TpmRelease(pcrs={4: "00" * 32}),
        lambda: TpmRelease(pcrs={17: "ff" * 32}),
        lambda: TpmRelease(boot_applications=("aa",)),
        lambda: AzureSnpRelease(measurement="3e" * 48),
        lambda: AzureSnpRelease(pcrs={4: "aa" * 32}),
        lambda: AzureTdxRelease(mr_td="aa" * 48, not_compared=("rtmr0", "rtmr1", "rtmr2", "rtmr3")),
        lambda: Policy.genuine_only(accept_products=["Rome"]),
        lambda: TrustPolicy(anchors=()),
        lambda: TrustPolicy(max_age=float("nan")),
        lambda: Policy.genuine_only(accept_statuses=["Revoked"]),
        lambda: Policy.genuine_only(accept_statuses=[""]),
        lambda: Policy.genuine_only(simulated="yes"),  # type: ignore[arg-type]
        lambda: masked("00", None, 8, "xfam"),
    ],
)
def test_policies_built_in_python_obey_the_same_rules(make: object) -> None:
    with pytest.raises(ConfigurationError):
        make()  # type: ignore[operator]


def test_overrides_add_and_tell() -> None:
    policy = Policy.from_toml(f"[policy]\n{IDENTITY}", "prod.toml")
    more = policy.with_overrides(accept_statuses=["OutOfDate", "UpToDate"], simulated=True)
    assert more.rules.tcb_statuses == ("UpToDate", "SWHardeningNeeded", "OutOfDate")
    assert more.trust.simulated == "accept"
    assert more.name == "prod.toml + accepted status OutOfDate + simulated evidence accepted"
    assert policy.with_overrides() == policy
    late = Policy.from_toml(f'{GRACE}[[policy.grace]]\nstatus = "OutOfDate"\nuntil = 2026-09-01', "prod.toml")
    assert late.with_overrides(accept_statuses=["OutOfDate"]).rules.grace == ()
    assert policy.with_overrides(simulated="refuse").trust.simulated == "refuse"
    assert more.rules.releases == policy.rules.releases


def test_genuine_only_takes_every_status_but_revoked() -> None:
    policy = Policy.genuine_only(accept_statuses=ACCEPTABLE_STATUSES)
    assert set(policy.rules.tcb_statuses) == set(ACCEPTABLE_STATUSES)
    assert policy.rules.code_not_compared
    assert policy.trust.simulated == "refuse"


def test_the_documented_keys_are_the_keys_there_are() -> None:
    """docs/policy.md names every key that the reader knows, and every code that the judge gives."""
    page = (Path(__file__).parents[3] / "docs" / "policy.md").read_text("utf-8")
    kinds = [*(row.release for row in KINDS.values()), *STATES]
    keys = {field.name for cls in (TrustPolicy, TokenPolicy, Rules, *kinds) for field in dataclasses.fields(cls)}
    keys -= {"label", "releases", "code_not_compared", "states", "pcrs", "tokens"}
    assert "`[[trust.tokens]]`" in page
    assert {key for key in keys if f"`{key}`" not in page} == set()
    from attestable_mcp.appraise.judge import HINTS

    assert {code for code in HINTS if f"`{code}`" not in page} == set()
    assert {tee for tee in Tee if f'`"{tee}"`' not in page} == set()


def test_the_examples_of_the_page_are_policies() -> None:
    page = (Path(__file__).parents[3] / "docs" / "policy.md").read_text("utf-8")
    toml = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    python = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert (len(toml), len(python)) == (1, 1)
    assert Policy.from_toml(toml[0]).rules.releases
    scope: dict[str, Any] = {}
    exec(python[0], scope)
    assert len(scope["policy"].rules.releases) == 2


GRACE = '[policy]\nmrenclave = "' + "ab" * 32 + '"\n'


@pytest.mark.parametrize(
    "written", ["2026-09-01", '"2026-09-01"', "2026-09-01T00:00:00Z", '"2026-09-01T02:00:00+02:00"']
)
def test_a_grace_ends_at_a_moment_however_it_is_written(written: str) -> None:
    policy = Policy.from_toml(f'{GRACE}[[policy.grace]]\nstatus = "OutOfDate"\nuntil = {written}\n', "prod.toml")
    (grace,) = policy.rules.grace
    assert (grace.status, grace.until) == ("OutOfDate", datetime(2026, 9, 1, tzinfo=UTC))
    assert grace.words == "OutOfDate until 2026-09-01T00:00:00Z"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('status = "OutOfDate"', "until is missing"),
        ("until = 2026-09-01", "status is missing"),
        ('status = "Revoked"\nuntil = 2026-09-01', "wanted one of UpToDate"),
        ('status = "OutOfDate"\nuntil = 2026-09-01T00:00:00', "a time with its zone"),
        ('status = "OutOfDate"\nuntil = "soon"', "wanted a day such as"),
        ('status = "OutOfDate"\nuntil = 7', "wanted a day such as"),
        ('status = "OutOfDate"\nuntil = 2026-09-01\nfor = 1', "unknown key"),
        ('status = "UpToDate"\nuntil = 2026-09-01', "accepted by tcb_statuses already"),
        (
            'status = "OutOfDate"\nuntil = 2026-09-01\n[[policy.grace]]\nstatus = "OutOfDate"\nuntil = 2026-09-02',
            "already",
        ),
    ],
)
def test_a_grace_that_cannot_be_is_an_error_with_its_line(table: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Policy.from_toml(f"{GRACE}[[policy.grace]]\n{table}\n", "prod.toml")
    assert caught.value.message.startswith("prod.toml, line ")


PCR = f'pcr4 = "{"44" * 32}"'
GUEST = f'measurement = "{"3e" * 48}"'


@pytest.mark.parametrize(
    ("keys", "tee"),
    [
        (GUEST, Tee.SEV_SNP), (f"{GUEST}\n{PCR}", Tee.AZURE_SEV_SNP), (f"{TDX}\n{PCR}", Tee.AZURE_TDX),
        (f'tee = "tpm"\n{PCR}', Tee.TPM), (f'tee = "nitro"\npcr0 = "{"00" * 47}01"', Tee.NITRO),
        (f'boot_applications = ["{"ab" * 32}"]', Tee.TPM),
        (f'{GUEST}\nboot_applications = ["{"ab" * 32}"]', Tee.AZURE_SEV_SNP),
        (f'id_key_digest = "{"1d" * 48}"\nmin_guest_svn = 2', Tee.SEV_SNP), ('token_claims = { "a.b" = 1 }', Tee.TOKEN),
    ],
)  # fmt: skip
def test_the_kind_follows_from_the_keys(keys: str, tee: Tee) -> None:
    for text in (f"[policy]\n{keys}", f"[[policy.accept]]\n{keys}"):
        (release,) = Policy.from_toml(text).rules.releases
        assert release.tee is tee


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (f"[policy]\n{PCR}", 2, 'of several kinds: say which with tee, one of "nitro", "tpm"'),
        (f"[policy]\n\n{PCR}\nhost_data = '{'00' * 32}'", 4, "id_key_digest or measurement is missing beside it"),
        (f"[policy]\ntee = 'sgx'\n{PCR}", 2, "tee is sgx, but pcr4 is of another kind"),
        (f"[policy]\n{GUEST}\n{IDENTITY}", 2, "one release is of one kind"),
        (f"[policy]\ntee = 'tpm'\n{PCR}\npcr23 = '{'aa' * 32}'", 4, "anybody on the machine can reset this PCR"),
        ("[policy]\ntee = 'tpm'\npcr4 = 'aa'", 3, "wanted 64, 96 or 128 hex digits"),
        (f"[policy]\ntee = 'tpm'\n{PCR}\npcr04 = 'x'", 4, "pcr04: unknown key"),
        (f"[policy]\n{GUEST}\nsecure_boot = 'require'", 3, "about TPM, Azure or TDX, but no TPM, Azure"),
        (f"[policy]\n{GUEST}\ntcb_statuses = ['OutOfDate']", 3, "about Intel's TEEs"),
        (f"[policy]\n{GUEST}\nproducts = ['Milan', 'Rome']", 3, "wanted one of Milan, Genoa, Turin"),
        (f"[policy]\n{GUEST}\nvmpl = [0, 4]", 3, "from 0 to 3"),
        (f"[policy]\n{GUEST}\nvmpl = 0", 3, "wanted a list of numbers"),
        ("[policy]\ntoken_claims = { a = [1] }", 2, "wanted text, a number"),
        (f"[[trust.tokens]]\nissuer = 'x'\n[policy]\n{IDENTITY}", 1, "profile is missing"),
        (f"[[trust.tokens]]\nprofile = 'ear'\n[policy]\n{IDENTITY}", 2, "either keys (a key set) or root"),
        (
            f"[[trust.tokens]]\nprofile = 'ear'\nkeys = 'http://x/k'\n[policy]\n{IDENTITY}",
            3,
            "a path or an https address",
        ),
        (f"[[trust.tokens]]\nprofile = 'jwt'\nkeys = 'k'\n[policy]\n{IDENTITY}", 2, "wanted one of ear"),
        (f"[[trust.tokens]]\nprofile = 'azure-maa'\nkeys = 'k'\n[policy]\n{IDENTITY}", 2, "issuer is missing"),
    ],
)
def test_a_bad_policy_of_another_kind_names_file_and_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Policy.from_toml(text, "prod.toml")
    assert words in caught.value.message, caught.value.message
    assert caught.value.message.startswith(f"prod.toml, line {line}: "), caught.value.message
