"""What the host can slip into a measured program through its environment (attack P7).

A TEE measures the program, not the variables that a host hands it: where a runtime passes these on, the host's library
runs inside the measurement. What loads code into this process is refused at start-up, unless the operator names it on
the command line, which is measured. What decides where code is looked for goes into the simulated measurement, as it
has to stand in a manifest for a real one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attestable_mcp.errors import ConfigurationError

INJECTING = ("LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "PYTHONHOME", "PYTHONSTARTUP")
"""Each loads code into a process that did not ask for it (ld.so(8), dyld(1), Python "Environment variables")."""
SHAPING = ("PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Each decides where code is looked for: common in development, and another program where it is set."""


def demand_own_environment(environ: Mapping[str, str], allowed: Collection[str] = ()) -> None:
    """Refuse to start with foreign code in the process.

    Raises:
        ConfigurationError: `host_environment`: a variable that loads code is set, and nobody named it.
    """
    found = [name for name in INJECTING if environ.get(name) and name not in allowed]
    if found:
        raise ConfigurationError(
            f"environment: wanted none of {', '.join(INJECTING)}, seen {', '.join(found)}",
            code="host_environment",
            hint="It loads code that no measurement covers. Unset it; if it is yours and measured (a Gramine manifest "
            f"sets it), say so with --allow-env {found[0]}.",
        )


def shaping(environ: Mapping[str, str], allowed: Collection[str] = ()) -> dict[str, str]:
    """The variables that change which code runs, for a measurement: those that are set, by name."""
    names = (*SHAPING, *(name for name in INJECTING if name in allowed))
    return {f"environment/{name}": value for name in names if (value := environ.get(name))}
