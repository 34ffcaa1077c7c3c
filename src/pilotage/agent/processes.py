"""Short-lived child processes: run one, bounded in time and output.

Stands apart because runc, umoci and skopeo are all run this way. Argument lists only, never a shell.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT_BYTES_MAX = 1 << 20  # an error message, a JSON document; never a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a process ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    def error_text(self) -> str:
        """The last line it wrote to standard error (or output), bounded."""
        text = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")
        return text.splitlines()[-1][:1000] if text else f"exit code {self.exit_code}"


async def run(
    arguments: Sequence[str],
    *,
    timeout_s: float,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    input_: bytes = b"",
    capture: bool = True,
    directory: Path | None = None,
) -> Completed:
    """Run to the end; killed and `TimeoutError` after `timeout_s`, killed on cancellation too.

    `capture=False` for a program that leaves a daemon behind: some event loops let it inherit our pipes under further
    numbers, and their end would come only with the daemon's. `directory`: where it runs; None: where we do.
    """
    captured = asyncio.subprocess.PIPE if capture else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE if input_ else asyncio.subprocess.DEVNULL,
        stdout=captured,
        stderr=captured,
        pass_fds=tuple(pass_fds),
        env=environment,
        cwd=directory,
    )
    if process.stdin is not None:
        process.stdin.write(input_)
        process.stdin.close()
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            return Completed(exit_code=await process.wait(), stdout=stdout, stderr=stderr)
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """Everything, of which the first `OUTPUT_BYTES_MAX` are kept."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(65536)):
        kept += chunk[: OUTPUT_BYTES_MAX - len(kept)]
    return bytes(kept)
