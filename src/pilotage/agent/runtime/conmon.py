"""`conmon`: how it is started for a container, what it answers, what it is told later.

Stands apart from `oci` as the place that knows conmon's arguments, its pipe and its commands; its attach socket is
`session`'s. One conmon watches one container and outlives the agent; what it leaves on disk `oci` reads.
"""

import asyncio
import contextlib
import errno
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pilotage.agent import processes
from pilotage.agent.runtime import ContainerSpec
from pilotage.agent.runtime.session import settle

ANSWER_TIMEOUT_S = 60.0  # far above any creation on a loaded machine; a hung one must not hang the pod for ever
REOPEN_TIMEOUT_S = 2.0  # conmon opens a log within a millisecond, unless it is stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a container that was to be created."""

    pid: int  # of its first process; -1 when there is none
    message: str  # why there is none, in the runtime's own words; may be empty
    exit_code: int  # of the conmon that was called, which leaves another behind


class Conmon:
    """Starts a monitor for each container of one runtime."""

    def __init__(self, program: str, *, runtime: str, root: Path, exits: Path) -> None:
        self._program = program
        self._runtime = runtime
        self._root = root  # of the runtime's own files
        self._exits = exits  # where exit codes are left, by container id

    async def create(self, spec: ContainerSpec, directory: Path) -> Answer:
        """Have the container in `directory` created and watched. Raises `TimeoutError`, `OSError`."""
        arguments = [
            self._program, "--cid", spec.container_id, "--cuuid", spec.container_id, "--name", spec.container_id,
            "--bundle", str(directory), "--persist-dir", str(directory), "--exit-dir", str(self._exits),
            "--runtime", self._runtime, "--runtime-arg", "--root", "--runtime-arg", str(self._root),
            "--container-pidfile", str(directory / "pid"), "--conmon-pidfile", str(directory / "conmon.pid"),
            "--log-path", f"k8s-file:{spec.log_path}", "--full-attach",
            *(["--terminal"] if spec.document["process"]["terminal"] else []),
            *(["--stdin"] if spec.stdin else []),
            *(["--leave-stdin-open"] if spec.stdin and not spec.stdin_once else []),
        ]  # fmt: skip
        read_end, write_end = os.pipe()
        try:
            completed = await processes.run(
                arguments,
                timeout_s=ANSWER_TIMEOUT_S,
                pass_fds=(write_end,),
                environment=os.environ | {"_OCI_SYNCPIPE": str(write_end)},
                capture=False,
                directory=directory,  # it leaves a file `oom` where it runs
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        pid, message = _parse(await _first_line(read_end, ANSWER_TIMEOUT_S))
        return Answer(pid=pid, message=message, exit_code=completed.exit_code)


def reopen_log(control: Path, log: Path) -> None:
    """Return once the new file is there, or conmon is not; blocks."""
    with contextlib.suppress(OSError):
        fd = os.open(control, os.O_WRONLY | os.O_NONBLOCK)  # an error, not a wait, when its reader has gone
        try:
            os.write(fd, b"2 0 0\n")  # conmon's ctr_logging.c: reopen the log
        finally:
            os.close(fd)
    deadline = time.monotonic() + REOPEN_TIMEOUT_S
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def _parse(line: bytes) -> tuple[int, str]:
    """The pid, or -1 and why."""
    try:
        answer = json.loads(line)
        return int(answer["pid"]), str(answer.get("message", ""))
    except (ValueError, KeyError, TypeError):
        return -1, ""


async def _first_line(fd: int, timeout_s: float) -> bytes:
    """From a pipe, without a thread: up to the first newline or the end; closes the pipe."""
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    data = b""
    try:
        async with asyncio.timeout(timeout_s):
            while b"\n" not in data:
                try:
                    chunk = os.read(fd, 65536)
                except OSError as error:
                    if error.errno != errno.EAGAIN:
                        raise
                    readable: asyncio.Future[None] = loop.create_future()
                    loop.add_reader(fd, settle, readable)
                    try:
                        await readable
                    finally:
                        loop.remove_reader(fd)
                    continue
                if not chunk:
                    break
                data += chunk
    finally:
        os.close(fd)
    return data
