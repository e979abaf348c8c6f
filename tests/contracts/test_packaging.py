"""What is published beside the package: the .mcpb bundle, server.json of the registry, and the README's mcp-name."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# MCPB manifest 0.4 and registry schema 2025-12-11, read in November 2026: the keys that they know, and their limits.
MANIFEST_REQUIRED = {"manifest_version", "name", "version", "description", "author", "server"}
MANIFEST_KNOWN = MANIFEST_REQUIRED | {
    "$schema", "display_name", "long_description", "repository", "homepage", "documentation", "support", "icon",
    "icons", "screenshots", "localization", "tools", "tools_generated", "prompts", "prompts_generated", "keywords",
    "license", "privacy_policies", "compatibility", "user_config", "_meta",
}  # fmt: skip
OPTION_KNOWN = {"type", "title", "description", "required", "default", "multiple", "sensitive", "min", "max"}
SERVER_KNOWN = {
    "$schema", "name", "title", "description", "version", "repository", "websiteUrl", "packages", "remotes", "icons",
    "_meta",
}  # fmt: skip
PACKAGE_KNOWN = {
    "registryType", "registryBaseUrl", "identifier", "version", "fileSha256", "runtimeHint", "transport",
    "runtimeArguments", "packageArguments", "environmentVariables",
}  # fmt: skip


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"packaging_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


@pytest.fixture(scope="module")
def manifest(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repository / "packaging" / "mcpb" / "manifest.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def registry(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repository / "server.json").read_bytes())
    return found


def test_the_manifest_keeps_to_its_version_of_the_format(manifest, project):
    assert manifest["manifest_version"] == "0.4"
    assert set(manifest) >= MANIFEST_REQUIRED
    assert set(manifest) <= MANIFEST_KNOWN
    assert (manifest["name"], manifest["version"]) == (project["name"], project["version"])
    assert manifest["license"] == project["license"]
    assert set(manifest["server"]) == {"type", "entry_point", "mcp_config"}
    assert manifest["server"]["type"] == "uv"
    assert set(manifest["server"]["mcp_config"]) <= {"command", "args", "env", "platform_overrides"}
    assert set(manifest["compatibility"]["platforms"]) == {"darwin", "linux", "win32"}
    assert manifest["compatibility"]["runtimes"]["python"] == project["requires-python"]


def test_every_field_of_the_dialog_is_used_and_every_placeholder_is_a_field(manifest):
    used = set(re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(manifest["server"])))
    assert used == set(manifest["user_config"]) == {"url", "policy"}
    for option in manifest["user_config"].values():
        assert {"type", "title", "description"} <= set(option) <= OPTION_KNOWN
        assert option["type"] in ("string", "number", "boolean", "directory", "file")
    assert [name for name, option in manifest["user_config"].items() if option["required"]] == ["url"]
    assert "danger" not in json.dumps(manifest), "nothing dangerous is one click away"


def test_the_same_tree_gives_the_same_bundle_and_it_holds_all_that_runs(repository, project, manifest, tmp_path):
    build = load(repository / "packaging" / "mcpb" / "build.py").build
    one, two = build(tmp_path / "one"), build(tmp_path / "two")
    assert one.name == f"{project['name']}-{project['version']}.mcpb"
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        names = archive.namelist()
        written = tomllib.loads(archive.read("pyproject.toml").decode())
        assert json.loads(archive.read("manifest.json")) == manifest
    assert names == sorted(names)
    assert {"main.py", "LICENSE", "README.md", manifest["server"]["entry_point"]} <= set(names)
    package = repository / "src" / "attestable_mcp"
    modules = {path.relative_to(repository).as_posix() for path in package.rglob("*.py")}
    assert len(modules) > 100
    assert modules <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "."))]
    assert written["project"]["dependencies"] == project["dependencies"]
    pinned = {re.split(r"[=;\[ ]", line)[0] for line in written["tool"]["uv"]["constraint-dependencies"]}
    wanted = {re.split(r"[<>=;\[ ]", line)[0] for line in project["dependencies"]}
    assert wanted <= pinned


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"ATTESTABLE_MCP_URL": "https://h/mcp", "ATTESTABLE_MCP_POLICY": "/p.toml"}, ["--policy", "/p.toml"]),
        ({"ATTESTABLE_MCP_URL": " https://h/mcp ", "ATTESTABLE_MCP_POLICY": ""}, []),
        ({"ATTESTABLE_MCP_URL": "https://h/mcp", "ATTESTABLE_MCP_POLICY": "${user_config.policy}"}, []),
        ({"ATTESTABLE_MCP_URL": "https://h/mcp"}, []),
    ],
)
def test_the_bundles_entry_makes_the_command_line(repository, environ, wanted):
    words = load(repository / "packaging" / "mcpb" / "main.py").words
    assert words(environ) == ["connect", "https://h/mcp", *wanted]


def test_server_json_keeps_to_the_registrys_schema(registry, project):
    assert registry["$schema"] == "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
    assert set(registry) <= SERVER_KNOWN
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", registry["name"])
    assert 1 <= len(registry["description"]) <= 100
    assert 1 <= len(registry["title"]) <= 100
    assert registry["version"] == project["version"]
    (package,) = registry["packages"]
    assert set(package) <= PACKAGE_KNOWN
    assert (package["registryType"], package["identifier"]) == ("pypi", project["name"])
    assert package["version"] == project["version"]
    assert package["transport"] == {"type": "stdio"}
    for argument in package["packageArguments"]:
        assert argument["type"] in ("positional", "named")
        needed = {"name"} if argument["type"] == "named" else {"value", "valueHint"}
        assert needed & set(argument)
        assert argument.get("format", "string") in ("string", "number", "boolean", "filepath")


def test_the_arguments_of_server_json_are_words_that_we_understand(registry):
    from attestable_mcp.cli.main import build, load

    (package,) = registry["packages"]
    words = []
    for argument in package["packageArguments"]:
        value = argument.get("value") or argument.get("placeholder") or "prod.toml"
        words += [argument["name"], value] if argument["type"] == "named" else [value]
    verb, *rest = words
    parsed = build(verb, load(verb)).parse(rest)
    assert parsed.url == "https://mcp.example:8443/mcp"
    assert str(parsed.policy) == "prod.toml"


def test_the_readme_claims_the_name_in_the_registry(registry, repository):
    lines = re.findall(r"mcp-name: (\S+)", (repository / "README.md").read_text(encoding="utf-8"))
    assert lines == [registry["name"]]
