"""A miniature Azure confidential VM: HCL report, runtime data and vTPM quote over the simulated AMD or Intel.

>>> evidence = AzureVm().evidence(bytes(64))

Layout as in Azure's documentation on guest attestation of confidential VMs. Every default of the options is good.
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from dataclasses import dataclass

from attestable_mcp.simulator import cbor
from attestable_mcp.simulator.amd import AmdVendor
from attestable_mcp.simulator.amd import well_known as well_known_amd
from attestable_mcp.simulator.amd_options import Report
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.simulator.keys import WELL_KNOWN_SEED
from attestable_mcp.simulator.options import TdxBody
from attestable_mcp.simulator.tpm import TpmQuote, TpmVendor
from attestable_mcp.wire import base64url

_HASHES = {"sha256": 1, "sha384": 2, "sha512": 3}
_SNP, _TDX = 2, 4
_TDREPORT = 1024
_GOOD_REPORT = Report()
_GOOD_QUOTE = TpmQuote()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hcl:
    """One HCL report, as the paravisor keeps it in the vTPM; on SEV-SNP, or on TDX with a TD quote beside it."""

    tdx: bool = False
    measurement: bytes = bytes.fromhex("51" * 48)
    """MEASUREMENT, or MRTD on TDX."""
    user_data: bytes = bytes(64)
    hash: str = "sha256"
    report_type: int | None = None
    """The number in the report; None follows the hardware."""
    secure_boot: bool = True
    report: Report = _GOOD_REPORT
    runtime_altered: bool = False
    """Another vmUniqueId than the one whose hash the hardware report carries, of the same length."""
    ak_named_twice: bool = False
    ak_of_stranger: bool = False
    """The runtime data names another attestation key than the vTPM's."""
    td_quote_of_stranger: bool = False
    """A TD quote over other runtime data than the HCL report's."""
    without_td_quote: bool = False
    padding: int = 0
    """Zeros after the runtime data, as an NV index has them."""


_GOOD = Hcl()


class AzureVm:
    """One VM. Safe to share between threads: nothing changes after construction."""

    def __init__(self, *, seed: bytes = WELL_KNOWN_SEED, amd: AmdVendor | None = None) -> None:
        self.amd = amd or (well_known_amd() if seed == WELL_KNOWN_SEED else AmdVendor(seed=seed))
        self.intel = Vendor(seed=seed)
        self.tpm = TpmVendor(seed=seed, rsa_key=True)
        self._seed = seed

    def evidence(self, report_data: bytes, *, hcl: Hcl = _GOOD, quote: TpmQuote = _GOOD_QUOTE) -> bytes:
        """The CBOR map in which it all travels; the quote's qualifying data is SHA-256 of 64 bytes of report data."""
        body: dict[str, cbor.Value] = {
            "hcl": self.hcl(hcl),
            "tpm": self.tpm.evidence(report_data, options=quote),
            "version": 1,
        }
        if hcl.tdx and not hcl.without_td_quote:
            body["td_quote"] = self.td_quote(hcl)
        return cbor.encode(dict(sorted(body.items(), key=lambda item: cbor.encode(item[0]))))

    def td_quote(self, options: Hcl, *, modulus: int | None = None) -> bytes:
        """The quote that Azure's metadata service makes of a TDREPORT: it carries the same report data."""
        digest = self._digest(options, self.runtime(options, modulus or self.tpm.modulus))
        data = bytes(64) if options.td_quote_of_stranger else digest
        return self.intel.quote_tdx(data, body=TdxBody(mrtd=options.measurement))

    @staticmethod
    def _digest(options: Hcl, runtime: bytes) -> bytes:
        return hashlib.new(options.hash, runtime).digest().ljust(64, b"\0")

    def _hardware(self, options: Hcl, digest: bytes) -> bytes:
        """An SNP report; or a TDREPORT, of which a verifier takes only the report data at byte 128."""
        if not options.tdx:
            return self.amd.report(digest, options.measurement, options=options.report)[:1184]
        return (b"\x81".ljust(128, b"\0") + digest).ljust(_TDREPORT, b"\0").ljust(1184, b"\0")

    def hcl(self, options: Hcl = _GOOD, *, modulus: int | None = None) -> bytes:
        """Header, hardware report, runtime header, runtime data. `modulus` names the RSA key of another TPM."""
        runtime = self.runtime(options, modulus or self.tpm.modulus)
        report = self._hardware(options, self._digest(options, runtime))
        if options.runtime_altered:
            runtime = runtime.replace(b"51515151", b"61616161", 1)
        header = struct.pack("<4sIII16x", b"HCLA", 2, 1236 + len(runtime), 2)
        kind = (_TDX if options.tdx else _SNP) if options.report_type is None else options.report_type
        shape = (20 + len(runtime), 1, kind, _HASHES[options.hash], len(runtime))
        return header + report + struct.pack("<5I", *shape) + runtime + bytes(options.padding)

    def runtime(self, options: Hcl, modulus: int) -> bytes:
        """The JSON that the hardware report vouches for."""
        named = TpmVendor(seed=self._seed + b" stranger", rsa_key=True).modulus if options.ak_of_stranger else modulus
        key = {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": _base64url(named)}
        document = {
            "keys": [key, key] if options.ak_named_twice else [key],
            "vm-configuration": {
                "console-enabled": True,
                "secure-boot": options.secure_boot,
                "tpm-enabled": True,
                "vmUniqueId": "51515151-5151-5151-5151-515151515151",
            },
            "user-data": options.user_data.hex().upper(),
        }
        return json.dumps(document, separators=(",", ":")).encode()


def _base64url(number: int) -> str:
    return base64url.encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))


@functools.cache
def well_known() -> AzureVm:
    """The well-known VM, made once in a process."""
    return AzureVm()
