"""Checks that every value of a policy goes through, whether it was written in a file or in Python."""

from __future__ import annotations

from dataclasses import dataclass

from attestable_mcp.appraise.fault import PolicyFault


def one_of(value: object, allowed: tuple[str, ...], name: str) -> None:
    """Demand one of a few words. Raises: PolicyFault."""
    if value not in allowed:
        raise PolicyFault(f"wanted one of {', '.join(allowed)}, seen {value!r}", name)


def hex_text(value: object, size: int, *path: str | int) -> str:
    """Check `size` bytes as hexadecimal text and give them in lower case. Nothing is padded, trimmed or guessed.

    Raises: PolicyFault.
    """
    if not isinstance(value, str):
        raise PolicyFault(f"wanted {size * 2} hex digits as a string, seen {type(value).__name__}", *path)
    if len(value) != size * 2:
        raise PolicyFault(f"wanted {size * 2} hex digits ({size} bytes), seen {len(value)}", *path)
    if not set(value) <= set("0123456789abcdefABCDEF"):
        raise PolicyFault(f"wanted hex digits, seen {value!r}", *path)
    return value.lower()


def whole(value: object, low: int, high: int, *path: str | int) -> None:
    """Demand a whole number from `low` to `high`. Raises: PolicyFault."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyFault(f"wanted a whole number, seen {value!r}", *path)
    if not low <= value <= high:
        raise PolicyFault(f"wanted a number from {low} to {high}, seen {value}", *path)


def words(value: object, *path: str | int) -> None:
    """Demand a tuple of distinct, non-empty strings, at least one. Raises: PolicyFault."""
    if not isinstance(value, tuple) or not value:
        raise PolicyFault("wanted at least one value, seen none", *path, hint="Leave the key out to get its default.")
    for index, word in enumerate(value):
        if not isinstance(word, str) or not word.strip():
            raise PolicyFault(f"wanted a word, seen {word!r}", *path, index)
        if word in value[:index]:
            raise PolicyFault(f"{word!r} stands here twice", *path, index)


def put(target: object, name: str, value: object) -> None:
    """Normalise a field of a frozen dataclass in its own `__post_init__`."""
    object.__setattr__(target, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedValue:
    """Exact bits: `value` where `mask` is set, both hex of the same length with the bytes in the order of the quote."""

    value: str
    mask: str

    def holds(self, seen: str) -> bool:
        """Does `seen` (hex of the same length) carry these bits?"""
        if len(seen) != len(self.value):
            return False
        return int(seen, 16) & int(self.mask, 16) == int(self.value, 16)

    @property
    def words(self) -> str:
        """The rule as a report shows it."""
        return self.value if set(self.mask) == {"f"} else f"{self.value} under mask {self.mask}"


def masked(value: str, mask: str | None, size: int, name: str) -> MaskedValue:
    """Build exact bits of `size` bytes. Raises: ConfigurationError where the value asks for bits outside its mask."""
    value = hex_text(value, size, name)
    mask = "f" * (size * 2) if mask is None else hex_text(mask, size, f"{name}_mask")
    if int(value, 16) & ~int(mask, 16):
        raise PolicyFault("the value sets bits that the mask leaves out", name)
    if not int(mask, 16):
        raise PolicyFault("an all-zero mask compares nothing", f"{name}_mask")
    return MaskedValue(value=value, mask=mask)


def check_mask(target: object, name: str, size: int) -> None:
    """Demand that field `name` is a MaskedValue of `size` bytes, or None. Raises: PolicyFault."""
    rule = getattr(target, name)
    if isinstance(rule, MaskedValue):
        masked(rule.value, rule.mask, size, name)
    elif rule is not None:
        raise PolicyFault(f"wanted a MaskedValue, seen {type(rule).__name__}", name)


def check_list(target: object, name: str, size: int) -> None:
    """Demand that field `name` is empty or a tuple of hex values of `size` bytes. Raises: PolicyFault."""
    values = getattr(target, name)
    if values == ():
        return
    words(values, name)
    put(target, name, tuple(hex_text(value, size, name, index) for index, value in enumerate(values)))
