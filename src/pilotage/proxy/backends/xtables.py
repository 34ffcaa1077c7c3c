"""The seam to iptables: whole texts in, whole texts out, and the programs that carry them to the kernel.

Apart from the backend so that it runs on `FakeXtables` as well. The programs are the interface: the kernel's own one is
private to them and differs between the two flavours. `legacy` replaces a whole table per COMMIT, `nft` writes nf_tables
transactions; both understand the same text. Acts in the network namespace in which it was made, from any thread but
one at a time.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pilotage.network import namespaces
from pilotage.nft import KernelNft, NftError
from pilotage.nft.core.objects import Table
from pilotage.proxy.core.restore import TABLES
from pilotage.proxy.errors import BackendError

R = TypeVar("R")
Flavour = Literal["legacy", "nft"]

_PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
_LOCK_WAIT_S = 5  # others take the lock for one table; longer means that somebody hangs
_TIMEOUT_S = 120.0  # a table of 10,000 Services takes seconds; longer means that somebody hangs
_NAMESPACE = Path("/proc/thread-self/ns/net")


class Xtables(Protocol):
    """What a backend may ask of iptables. Every call raises `BackendError`."""

    def restore(self, family: str, text: str) -> None:
        """Carry out the text of iptables-restore without touching what it does not name; a table is all or nothing."""
        ...

    def save(self, family: str) -> str:
        """Every table, as iptables-save prints it. Costs the size of everything."""
        ...

    def is_installed(self) -> bool:
        """Whether the programs are there at all."""
        ...

    def generation(self) -> int | None:
        """A number that changes whenever anybody changes rules; None: nobody counts."""
        ...

    def close(self) -> None:
        """Release what this process holds; the rules stay."""
        ...


class KernelXtables:
    """iptables of the calling thread's network namespace."""

    def __init__(self, flavour: Flavour) -> None:
        self._flavour: Flavour = flavour
        # Debian has both flavours by these names; elsewhere there may be one, and no need to say which.
        self._infix = f"-{flavour}" if shutil.which(f"iptables-{flavour}-restore") else ""
        self._namespace = os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        self._nft = KernelNft() if flavour == "nft" else None  # None: the flavour that counts nothing

    def is_installed(self) -> bool:
        if self._infix:
            return True
        return shutil.which("iptables-restore") is not None and host_flavour() == self._flavour

    def restore(self, family: str, text: str) -> None:
        program = f"{_PROGRAMS[family]}{self._infix}-restore"
        self._run([program, "--noflush", "--wait", str(_LOCK_WAIT_S)], text)

    def save(self, family: str) -> str:
        if not self._inside(lambda: self._has_tables(family)):
            return ""  # asking the kernel costs a hundredth of asking a program
        return self._run([f"{_PROGRAMS[family]}{self._infix}-save"])

    def generation(self) -> int | None:
        return _asked(self._nft.generation) if self._nft is not None else None

    def close(self) -> None:
        if self._nft is not None:
            self._nft.close()
        os.close(self._namespace)

    def _has_tables(self, family: str) -> bool:
        if self._nft is not None:
            nft = self._nft
            return _asked(lambda: any(nft.has_table(Table(family=family, name=name)) for name in TABLES))
        try:
            return bool(Path(f"/proc/thread-self/net/{family}_tables_names").read_text())
        except FileNotFoundError:
            return False  # no module of it is loaded

    def _inside(self, function: Callable[[], R]) -> R:
        """Call `function` in our namespace. Changing to it needs more rights than iptables does, so only a thread that
        is elsewhere changes."""
        here = os.path.samestat(os.fstat(self._namespace), _NAMESPACE.stat())
        return function() if here else namespaces.run_in(Path(f"/proc/self/fd/{self._namespace}"), function)

    def _run(self, command: list[str], text: str = "") -> str:
        if not self.is_installed():
            raise BackendError(f"no {command[0]} of flavour {self._flavour}: install the Debian package iptables")
        # A program is born into the namespace of the thread that starts it.
        return self._inside(lambda: _run(command, text))


def _asked(question: Callable[[], R]) -> R:
    try:
        return question()
    except NftError as error:
        raise BackendError(str(error)) from error


def host_flavour() -> Flavour:
    """The flavour of the program that this host calls `iptables`. Raises BackendError when there is none."""
    return "nft" if "nf_tables" in _run(["iptables", "--version"]) else "legacy"


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError as error:
        raise BackendError(f"no program {command[0]}: install the Debian package iptables") from error
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{command[0]} did not end within {_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        raise BackendError(f"{command[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
