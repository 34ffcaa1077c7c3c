"""A cluster that was started by `pilotage up`, as its users see it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
PILOTAGE = str(BIN / "pilotage")
TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster started by `pilotage up`."""

    home: Path
    name: str
    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PILOTAGE_HOME": str(self.home), "HOME": str(self.home)}

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command in the cluster's own network."""
        return [PILOTAGE, "shell", "--name", self.name, "--", *command]

    def kubectl(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            [str(BIN / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            input=given,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make_namespace(self, name: str) -> None:
        """A namespace in which pods are admitted."""
        self.kubectl("create", "namespace", name)
        self.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=30s")
