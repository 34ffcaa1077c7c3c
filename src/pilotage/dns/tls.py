"""The certificate of the listeners that speak TLS, renewed while they serve.

Apart from the listeners because both share it. A changed file is read again within seconds and used by the next
handshake; one that cannot be read leaves the old certificate in place.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from pilotage.kit.errors import UsageError
from pilotage.telemetry import get_logger

LOOK_EVERY_S = 10.0
HANDSHAKE_TIMEOUT_S = 5.0
_log = get_logger()


class Certificate:
    """One chain and key for several contexts."""

    def __init__(self, certificate: str, key: str) -> None:
        self._certificate, self._key = Path(certificate), Path(key)
        self._contexts: list[ssl.SSLContext] = []
        self._seen = self._stamp()

    def context(self, *protocols: str) -> ssl.SSLContext:
        """For one listener, with its ALPN names. Raises `UsageError` when the files are not what they should be."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(protocols))
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"certificate {self._certificate} and key {self._key}: {error}") from error
        self._contexts.append(context)
        return context

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Read the files again if they changed."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            for context in self._contexts:
                context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            # Perhaps one of two files is written and the other is not: look again, and say so only once per change.
            _log.warning("cannot read the renewed certificate", error=str(error)[:300])
        self._seen = stamp

    def _stamp(self) -> tuple[int, ...]:
        try:
            return tuple(path.stat().st_mtime_ns for path in (self._certificate, self._key))
        except OSError:
            return ()
