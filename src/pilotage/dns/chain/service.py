"""The chain in service: made from the file or the flags, exchanged when the file changes, its steps' tasks kept.

A changed file that is wrong changes nothing: the mistakes are logged and counted, and the chain in service goes on.
Questions under way end in the chain in which they began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from pilotage.dns.chain import Chain, Step
from pilotage.dns.chain.build import Plan, chain_of, check_file, make_chain
from pilotage.dns.chain.cache import Cache
from pilotage.dns.chain.cache import Options as CacheOptions
from pilotage.dns.chain.environment import Environment
from pilotage.dns.chain.exchange import Endpoint
from pilotage.dns.chain.forward import Forward
from pilotage.dns.chain.forward import Options as ForwardOptions
from pilotage.dns.config import Config, find_upstreams
from pilotage.dns.metrics import RELOADS
from pilotage.kit.errors import UsageError
from pilotage.kit.tasks import task_set
from pilotage.telemetry import get_logger

RECHECK_S = 1.0
FILE_BYTES_MAX = 1 << 20
_log = get_logger()


class ChainService:
    """`chain` is what to serve by; `run` keeps it current."""

    def __init__(self, config: Config, environment: Environment) -> None:
        """Raises `UsageError` for a wrong file."""
        self._config = config
        self._environment = environment
        self._path = config.config_file
        self._text = ""
        self.plan = check_file(self._path, self._read) if self._path else Plan()
        self.chain = make_chain(self.plan, environment) if self._path else self._from_flags()

    def _from_flags(self) -> Chain:
        config, clock = self._config, self._environment.clock
        endpoints = [Endpoint(address) for address in find_upstreams(config)]
        options = ForwardOptions(attempt_timeout_s=config.upstream_timeout_s)
        steps: list[Step] = [Cache(clock, CacheOptions(entries_max=config.cache_entries_max))]
        return chain_of([*steps, Forward(endpoints, clock, options)])

    def _read(self, path: str) -> str:
        with Path(path).open("rb") as file:
            self._text = file.read(FILE_BYTES_MAX).decode()
        return self._text

    async def run(self, exchanged: Callable[[Plan, Chain], Awaitable[None]]) -> None:
        """Run the steps' tasks; `exchanged` is awaited with each new chain before the old one's tasks end."""
        async with task_set() as tasks:
            tasks.start(_run_steps(self.chain), key="steps", name="dns steps")
            while True:
                await asyncio.sleep(RECHECK_S)
                if self._path and self.reread():
                    await exchanged(self.plan, self.chain)
                    tasks.start(_run_steps(self.chain), key="steps", name="dns steps")

    def reread(self) -> bool:
        """Whether there is a new chain."""
        before = self._text
        try:
            self._read(self._path)
        except (OSError, UnicodeDecodeError):
            return False  # being replaced, or gone: what it said last still counts
        if self._text == before:
            return False
        try:
            self.plan = check_file(self._path, lambda _: self._text)
            self.chain = make_chain(self.plan, self._environment)
        except UsageError as error:
            RELOADS.labels("refused").inc()
            _log.error("configuration refused, the old one stays", problems=str(error).splitlines())
            return False
        RELOADS.labels("applied").inc()
        _log.info("configuration applied", path=self._path, steps=len(self.chain.steps))
        return True


async def _run_steps(chain: Chain) -> None:
    async with task_set() as tasks:
        for step in chain.steps:
            tasks.start(step.run())
        await tasks.wait()
