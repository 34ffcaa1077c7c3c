"""A person at a terminal: a program on a pty of its own, what it printed, what is typed."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping

TIMEOUT_S = 40.0


class Terminal:
    """Use as a context manager; the program is killed if it is still there at the end."""

    def __init__(self, *command: str, environment: Mapping[str, str], rows: int = 33, columns: int = 90) -> None:
        self.printed = b""
        self._seen = 0
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(command[0], list(command), dict(environment))
        self._code: int | None = None

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: str) -> None:
        """Wait until the program has printed something since the last such wait."""
        deadline = time.monotonic() + TIMEOUT_S
        while (found := self.printed.find(text.encode(), self._seen)) < 0:
            assert self._read(deadline), f"ended without {text!r}: {self.printed!r}"
        self._seen = found + len(text)

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read(deadline):
            pass
        _, status = os.waitpid(self._pid, 0)
        self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self._fd], [], [], max(deadline - time.monotonic(), 0))
        assert readable, f"nothing more came in time: {self.printed!r}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.printed += data
        return bool(data)
