"""What is wrong with a policy, and where."""

from __future__ import annotations

from attestable_mcp.errors import ConfigurationError


class PolicyFault(ConfigurationError):
    """A policy that cannot be. `path` names the key within its table, so that a reader of files can find the line."""

    def __init__(self, problem: str, *path: str | int, hint: str | None = None) -> None:
        self.problem = problem
        self.path = path
        name = ".".join(str(part) for part in path if isinstance(part, str))
        super().__init__(f"{name}: {problem}" if name else problem, hint=hint)
