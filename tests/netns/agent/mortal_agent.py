"""Agents in processes of their own that die by SIGKILL, from outside or by their own hand at a chosen point.

`python mortal_agent.py KUBECONFIG CONFIG POINT_FILE` imports everything once, then forks an agent for every line that
it reads and prints `agent PID`, `ready` and `ended STATUS`. An agent kills itself when it comes to the point that is
written in POINT_FILE: `before` or `after`, and the name of something that its runtime does.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.agent import Config, run
from pilotage.agent.processes import Completed
from pilotage.agent.runtime import ContainerSpec
from pilotage.agent.runtime.cgroup import ControlGroups
from pilotage.agent.runtime.oci import OCIRuntime
from pilotage.client import Client
from pilotage.kit.clock import SYSTEM_CLOCK


class MortalRuntime(OCIRuntime):
    """The real one, with places to die at."""

    point_file: Path

    def _reach(self, point: str) -> None:
        if self.point_file.exists() and self.point_file.read_text() == point:
            os.kill(os.getpid(), signal.SIGKILL)

    async def open_sandbox(self, uid: str, hostname: str, **more: Any) -> None:
        self._reach("before open_sandbox")
        await super().open_sandbox(uid, hostname, **more)
        self._reach("after open_sandbox")

    async def create(self, spec: ContainerSpec) -> None:
        self._reach("before create")
        await super().create(spec)
        self._reach("after create")

    async def _runc(self, *arguments: str) -> Completed:
        """Between the record of a start and the start, or an end and its removal."""
        self._reach(f"before runc {arguments[0]}")
        completed = await super()._runc(*arguments)
        self._reach(f"after runc {arguments[0]}")
        return completed

    async def signal(self, container_id: str, signal: str) -> None:
        self._reach(f"before {signal}")
        await super().signal(container_id, signal)
        self._reach(f"after {signal}")

    async def remove(self, container_id: str) -> None:
        await super().remove(container_id)
        self._reach("after remove")

    async def close_sandbox(self, uid: str) -> None:
        self._reach("before close_sandbox")
        await super().close_sandbox(uid)
        self._reach("after close_sandbox")


async def live(kubeconfig: Path, config: Config, point_file: Path) -> None:
    runtime = MortalRuntime(config.run_dir, cgroups=ControlGroups(config.cgroup_parent), clock=SYSTEM_CLOCK)
    runtime.point_file = point_file
    async with Client.from_kubeconfig(kubeconfig, user_agent="pilotage-test-agent") as client:
        await run(config, client, runtime=runtime, on_ready=lambda: print("ready", flush=True))


def main(arguments: Sequence[str]) -> None:
    kubeconfig, settings, point_file = Path(arguments[0]), json.loads(arguments[1]), Path(arguments[2])
    paths = {name: Path(settings.pop(name)) for name in ("data_dir", "run_dir", "roots_dir")}
    config = Config(**settings, **paths)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            runner = asyncio.Runner()
            runner.run(live(kubeconfig, config, point_file))
            os._exit(0)
        print(f"agent {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


@dataclass
class MortalAgents:
    """The other end: one agent at a time."""

    process: asyncio.subprocess.Process
    point_file: Path
    pid: int = 0  # of the agent that lives; 0: none does

    @classmethod
    async def open(cls, kubeconfig: Path, config: Config, scratch: Path) -> "MortalAgents":
        settings = {
            name: getattr(config, name) for name in ("node", "node_ip", "pod_cidr", "cgroup_parent", "housekeeping_s")
        } | {name: str(getattr(config, name)) for name in ("data_dir", "run_dir", "roots_dir")}
        point_file = scratch / "point"
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, str(kubeconfig), json.dumps(settings), str(point_file),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return cls(process, point_file)

    async def start(self) -> None:
        """One more agent; returns once it has taken up its pods."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.pid = int((await self._line()).split()[1])
        assert await self._line() == "ready"

    async def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        await self.died()

    def die_at(self, point: str) -> None:
        """From now on; see `MortalRuntime`."""
        self.point_file.write_text(point)

    async def died(self) -> None:
        """Wait for its end, which must be a violent one."""
        assert await self._line() == "ended -9"
        self.pid = 0
        self.point_file.unlink(missing_ok=True)

    async def aclose(self) -> None:
        if self.pid:
            await self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()

    async def _line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            return (await self.process.stdout.readline()).decode().strip()


if __name__ == "__main__":
    main(sys.argv[1:])
