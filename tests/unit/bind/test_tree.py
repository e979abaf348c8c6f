"""The hash tree against a second, recursive implementation of RFC 6962 section 2.1."""

from __future__ import annotations

import hashlib

import pytest

from attestable_mcp.bind.tree import Tree, leaf_hash, node_hash, path, root, root_from_path
from attestable_mcp.errors import MalformedEvidence


def _recursive(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return hashlib.sha512(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha512(b"\x01" + _recursive(leaves[:split]) + _recursive(leaves[split:])).digest()


def _leaves(count: int) -> list[bytes]:
    return [bytes([index]) * 64 for index in range(count)]


@pytest.mark.parametrize("count", [*range(1, 18), 31, 32, 33, 63, 64, 65, 100])
def test_root_and_every_path_agree_with_the_recursive_definition(count: int) -> None:
    leaves = _leaves(count)
    assert root(leaves) == _recursive(leaves)
    tree = Tree(leaves)
    for index, leaf in enumerate(leaves):
        assert root_from_path(leaf, index, count, tree.path(index)) == tree.root


def test_a_single_leaf_has_an_empty_path_and_is_still_hashed() -> None:
    assert path([b"x" * 64], 0) == ()
    assert root([b"x" * 64]) == leaf_hash(b"x" * 64) != b"x" * 64


def test_a_node_never_passes_for_a_leaf() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert node_hash(left, right) != leaf_hash(left + right)


def test_another_index_or_size_leads_elsewhere() -> None:
    leaves = _leaves(5)
    tree = Tree(leaves)
    assert root_from_path(leaves[2], 3, 5, tree.path(2)) != tree.root
    with pytest.raises(MalformedEvidence):
        root_from_path(leaves[4], 4, 9, tree.path(4))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_paths_of_another_length_are_refused(count: int) -> None:
    tree = Tree(_leaves(count))
    good = tree.path(0)
    with pytest.raises(MalformedEvidence, match="too long"):
        root_from_path(_leaves(1)[0], 0, count, (*good, bytes(64)))
    if good:
        with pytest.raises(MalformedEvidence, match="too short"):
            root_from_path(_leaves(1)[0], 0, count, good[:-1])


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0)])
def test_places_outside_the_tree_are_refused(index: int, size: int) -> None:
    with pytest.raises(MalformedEvidence, match="index"):
        root_from_path(b"x", index, size, ())


def test_nodes_of_another_size_are_refused() -> None:
    with pytest.raises(MalformedEvidence, match="node"):
        root_from_path(b"x", 0, 2, (bytes(63),))


def test_an_empty_tree_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError):
        Tree([])
    with pytest.raises(TypeError):
        Tree([b"a"]).path(1)
