"""Where a cluster keeps its files: one value, made from the user's environment.

Apart from its users so that no path is put together twice. Called by the command line and the supervisor; only here is
the environment read. Two places: the *run* directory, gone after `down`, and the *data* directory, which survives it.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pilotage.kit import UsageError
from pilotage.up.core.config import NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The directories and files of one cluster."""

    name: str
    run_base: Path  # holds the run directories of all clusters of this user
    data: Path  # survives `down`
    images: Path  # the image store that all clusters of this user share
    cgroup: str  # relative to a hierarchy's root; unique on the machine

    @property
    def run(self) -> Path:
        return self.run_base / self.name

    @property
    def lock(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.run / "lock"

    @property
    def status(self) -> Path:
        return self.run / "status.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, through the host's loopback."""
        return self.run / "kubeconfig"

    @property
    def credentials(self) -> Path:
        """Kubeconfigs of the components, for use inside the fabric; readable by the owner only."""
        return self.run / "credentials"

    @property
    def scratch(self) -> Path:
        """Empty on the host; inside the fabric a memory file system that vanishes with it."""
        return self.run / "fabric"

    @property
    def logs(self) -> Path:
        """Survives `down`: that is when one reads it."""
        return self.data / "logs"

    def credential(self, file: str) -> Path:
        return self.credentials / f"{file}.kubeconfig"

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    def namespace(self, node: str) -> Path:
        """A node's network namespace, as seen inside the fabric, where `ip netns` looks for it."""
        return Path("/run/netns", node)


def make_layout(
    name: str, *, environment: Mapping[str, str] | None = None, user: int | None = None, data_dir: str = ""
) -> Layout:
    """The layout of cluster `name` for a user (default: this process's environment and user).

    PILOTAGE_HOME puts everything under one directory, for tests and for several installations side by side.
    UsageError for what cannot be a name: `down` removes directories called so, and `..` is one too.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"name {name!r} must be lower-case letters, digits and dashes, at most 40")
    environment = os.environ if environment is None else environment
    user = os.getuid() if user is None else user
    suffix = ""
    if home := environment.get("PILOTAGE_HOME"):
        run_base, data_base = Path(home).absolute() / "run", Path(home).absolute() / "data"
        # Hierarchies of control groups are one per machine: two homes must not share a name in them.
        suffix = "." + hashlib.sha256(str(run_base).encode()).hexdigest()[:8]
    elif user == 0:
        run_base, data_base = Path("/run/pilotage"), Path("/var/lib/pilotage")
    else:
        runtime = environment.get("XDG_RUNTIME_DIR")
        run_base = Path(runtime, "pilotage") if runtime else Path(f"/tmp/pilotage-{user}")  # noqa: S108 (made 0700)
        share = environment.get("XDG_DATA_HOME") or str(Path(environment.get("HOME", "/"), ".local", "share"))
        data_base = Path(share, "pilotage")
    data = Path(data_dir).absolute() if data_dir else data_base / name
    return Layout(
        name=name, run_base=run_base, data=data, images=data_base / ".images", cgroup=f"pilotage/{name}{suffix}"
    )
