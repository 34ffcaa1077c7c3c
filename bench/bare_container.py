"""Peer of a pod's start: one runc container on an overlay of the host's root. Prints seconds, one line a run.

Runs inside namespaces of its own (see bench.cluster), so that its mounts and processes go with it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pilotage-bare-") as scratch:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch], check=True)
        base = Path(scratch)
        for number in range(runs):
            bundle = base / str(number)
            for name in ("upper", "work", "rootfs"):
                (bundle / name).mkdir(parents=True)
            started = time.perf_counter()
            options = f"lowerdir=/,upperdir={bundle}/upper,workdir={bundle}/work"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(bundle / "rootfs")], check=True)
            subprocess.run(["runc", "spec"], cwd=bundle, check=True)
            spec = json.loads((bundle / "config.json").read_text())
            spec["process"] |= {"terminal": False, "args": ["sleep", "600"]}
            spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "cgroup"]
            spec["linux"].pop("resources", None)
            (bundle / "config.json").write_text(json.dumps(spec))
            name = f"pilotage-bare-{number}"
            root = ["runc", "--root", f"{scratch}/state"]
            subprocess.run([*root, "run", "--detach", name], cwd=bundle, check=True, stdin=-3, stdout=-3, stderr=-3)
            print(time.perf_counter() - started)
            subprocess.run([*root, "delete", "--force", name], check=True)
            subprocess.run(["umount", str(bundle / "rootfs")], check=True)
        subprocess.run(["umount", scratch], check=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
