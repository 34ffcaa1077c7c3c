"""What the kernel says of AppArmor: whether it is there, and which profiles are loaded.

Stands apart because the decisions are `core.app_armor`'s. Profiles come and go with the machine's packages, so nothing
is remembered. Source: kernel documentation admin-guide/LSM/apparmor.rst.
"""

from pathlib import Path

from pilotage.agent.core.app_armor import names_in

_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")


def is_enabled() -> bool:
    """Whether the kernel enforces profiles."""
    try:
        return _ENABLED.read_text().startswith("Y")
    except OSError:
        return False


def loaded_profiles() -> frozenset[str]:
    """Their names; none where they cannot be read."""
    try:
        return names_in(_PROFILES.read_text())
    except OSError:
        return frozenset()
