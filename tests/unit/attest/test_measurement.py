"""The simulated measurement: the same code measures the same anywhere, a changed server measures differently."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from attestable_mcp.attest.measurement import Measurement, measure_target
from attestable_mcp.errors import ConfigurationError


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return write(
        tmp_path / "first",
        server_py="import json\nimport helper\nfrom pack import thing\napp = helper.make()\n",
        helper_py="from . import deeper\ndef make(): return object()\n",
        deeper_py="X = 1\n",
        stranger_py="Y = 1\n",
        pack__thing_py="T = 1\n",
    )


@pytest.fixture(autouse=True)
def _pack_init(tmp_path: Path) -> None:
    (tmp_path / "first" / "pack").mkdir(parents=True, exist_ok=True)
    (tmp_path / "first" / "pack" / "__init__.py").write_text("")


def from_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str = "server:app") -> bytes:
    monkeypatch.chdir(folder)
    return measure_target(target).digest


def test_digest_is_the_documented_one() -> None:
    def framed(item: bytes) -> bytes:
        return len(item).to_bytes(4, "big") + item

    stream = (
        framed(b"attestable-mcp/measure/v1") + framed(b"a") + framed(b"\1" * 32) + framed(b"b") + framed(b"\2" * 32)
    )
    assert Measurement({"b": b"\2" * 32, "a": b"\1" * 32}).digest == hashlib.sha256(stream).digest()


def test_same_code_elsewhere_measures_the_same(single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "second" / "place"
    shutil.copytree(single, other)
    os.utime(other / "server.py", (0, 0))
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "server.cpython-311.pyc").write_bytes(b"cache")
    assert from_folder(single, monkeypatch) == from_folder(other, monkeypatch)


@pytest.mark.parametrize("name", ["server.py", "helper.py", "deeper.py", "pack/thing.py", "pack/__init__.py"])
def test_each_changed_file_measures_differently(name: str, single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = from_folder(single, monkeypatch)
    with (single / name).open("a") as file:
        file.write("# another byte\n")
    assert from_folder(single, monkeypatch) != before


def test_what_the_server_does_not_import_does_not_count(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = from_folder(single, monkeypatch)
    (single / "stranger.py").write_text("Y = 2\n")
    assert from_folder(single, monkeypatch) == before


def test_another_object_of_the_same_module_measures_differently(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_folder(single, monkeypatch) != from_folder(single, monkeypatch, "server:other")


def test_a_package_counts_whole(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = from_folder(single, monkeypatch, "pack.thing:T")
    (single / "pack" / "data.json").write_text("{}")
    after = from_folder(single, monkeypatch, "pack.thing:T")
    (single / "pack" / "renamed.json").write_text("{}")
    (single / "pack" / "data.json").unlink()
    assert len({before, after, from_folder(single, monkeypatch, "pack.thing:T")}) == 3


def test_finding_a_module_does_not_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, dangerous_py="raise SystemExit('ran')\n")
    monkeypatch.chdir(tmp_path)
    measure_target("dangerous:app")
    assert "dangerous" not in sys.modules


def test_configuration_counts_by_name_value_and_type() -> None:
    target = "http://127.0.0.1:1/mcp"
    configurations: list[dict[str, str | int | bool]] = [
        {}, {"a": 1}, {"a": "1"}, {"a": True}, {"b": 1}, {"a": 1, "b": 1}, {"a": ""},
    ]  # fmt: skip
    digests = [measure_target(target, configuration=configuration).digest for configuration in configurations]
    assert len(set(digests)) == len(configurations)
    swapped = [
        measure_target(target, configuration=dict(pairs)).digest
        for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)])
    ]
    assert swapped[0] == swapped[1]


def test_upstream_counts_by_its_text() -> None:
    assert measure_target("http://a/").digest != measure_target("http://b/").digest


def script(path: Path, first: str, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first}\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="scripts with an interpreter line are POSIX")
def test_a_script_counts_by_content_and_not_by_its_place_or_interpreter_line(tmp_path: Path) -> None:
    one = script(tmp_path / "a" / "run", "#!/usr/bin/env python3", "print(1)")
    two = script(tmp_path / "b" / "run", "#!/opt/elsewhere/python3", "print(1)")
    three = script(tmp_path / "c" / "run", "#!/usr/bin/env python3", "print(2)")
    digests = [measure_target([str(path)]).digest for path in (one, two, three)]
    assert digests[0] == digests[1] != digests[2]


def test_command_words_count_in_their_order() -> None:
    commands = [["--a", "--b"], ["--b", "--a"], ["--a"], ["--a --b"], ["--a", "--b", ""]]
    assert len({measure_target([sys.executable, *words]).digest for words in commands}) == len(commands)


def test_a_python_file_in_a_command_brings_what_it_imports(single: Path, tmp_path: Path) -> None:
    other = tmp_path / "second"
    shutil.copytree(single, other)
    before = [measure_target([sys.executable, str(folder / "server.py")]).digest for folder in (single, other)]
    assert before[0] == before[1]
    (other / "deeper.py").write_text("X = 2\n")
    assert measure_target([sys.executable, str(other / "server.py")]).digest != before[0]


def test_module_and_console_script_bring_their_package() -> None:
    by_module = measure_target([sys.executable, "-m", "mcp_server_time"]).parts
    program = shutil.which("mcp-server-time", path=sysconfig.get_path("scripts"))
    assert program is not None
    by_script = measure_target([program]).parts
    for parts in (by_module, by_script):
        assert "code/mcp_server_time/server.py" in parts
    assert "program/content" not in by_script


def test_our_own_files_count() -> None:
    parts = measure_target("http://a/").parts
    assert "attestable-mcp/errors.py" in parts
    assert not any(name.endswith(".pyc") or str(Path.cwd()) in name for name in parts)


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_object_counts_by_the_module_that_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, holder_py="class Server: pass\napp = Server()\n")
    module = load(tmp_path / "holder.py", "holder_of_an_object")
    with pytest.raises(ConfigurationError, match="Server object"):
        measure_target(module.app)
    monkeypatch.setitem(sys.modules, "holder_of_an_object", module)
    assert measure_target(module.app).digest == measure_target(module).digest
    before = measure_target(module.app).digest
    write(tmp_path, holder_py="class Server: pass\napp = Server()\n# changed\n")
    assert measure_target(module.app).digest != before


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module_anywhere:app", "import path"),
        (["no-such-program-anywhere"], "on the path"),
        ([], "at least one word"),
        ("missing.py:app", "missing.py"),
        (sys.modules["builtins"], "source file"),
    ],
)
def test_what_cannot_be_measured_is_refused(target: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        measure_target(target)


def test_source_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, broken_py="def (:\n")
    with pytest.raises(ConfigurationError, match="Python source"):
        measure_target(tmp_path / "broken.py")


def test_parts_cannot_be_changed_afterwards() -> None:
    parts = {"a": bytes(32)}
    measured = Measurement(parts)
    parts["b"] = bytes(32)
    assert dict(measured.parts) == {"a": bytes(32)}
    with pytest.raises(TypeError):
        measured.parts["c"] = bytes(32)  # type: ignore[index]
