"""Records that somebody wrote down → answers: the algorithm of RFC 1034 §4.3.2 over a fixed set.

Serves the steps `hosts` and `local`. Unlike `zone`, whose names are computed, everything is here beforehand; wildcards
are known (RFC 4592).
"""

from __future__ import annotations

from collections.abc import Iterable

from pilotage.dns.core.name import Name, is_within
from pilotage.dns.core.record import AAAA, ANY, CNAME, NS, SOA, A, Rcode, Record, soa_record
from pilotage.dns.core.zone import Answer

CHAIN_MAX = 10


class LocalZone:
    """One zone, authoritative: names that are not in it do not exist."""

    def __init__(self, origin: Name, records: Iterable[Record], *, ttl: int = 30) -> None:
        self.origin = origin
        self._sets: dict[Name, dict[int, tuple[Record, ...]]] = {}
        for record in records:
            if not is_within(record.owner, origin):
                raise ValueError(f"{b'.'.join(record.owner).decode('latin-1')} is outside the zone")
            sets = self._sets.setdefault(record.owner, {})
            sets[record.rtype] = (*sets.get(record.rtype, ()), record)
        for owner, sets in list(self._sets.items()):
            if CNAME in sets and len(sets) > 1:
                raise ValueError(f"{b'.'.join(owner).decode('latin-1')} has a CNAME and other records")
            for index in range(1, len(owner) - len(origin) + 1):
                self._sets.setdefault(owner[index:], {})  # empty non-terminals exist (RFC 8020)
        apex = self._sets.setdefault(origin, {})
        self._soa = apex.setdefault(SOA, (soa_record(origin, 1, ttl),))

    def __len__(self) -> int:
        return len(self._sets)

    def answer(self, name: Name, rtype: int) -> Answer:
        """For any name within the zone. `follow` is set when a CNAME leads out of it."""
        chain: tuple[Record, ...] = ()
        for _ in range(CHAIN_MAX):
            sets = self._find(name)
            if sets is None:
                return Answer(rcode=Rcode.NXDOMAIN, answers=chain, authority=self._soa)
            if CNAME in sets and rtype not in (CNAME, ANY):
                (alias,) = sets[CNAME][:1]
                chain = (*chain, alias._replace(owner=name))
                (target,) = alias.data
                assert isinstance(target, tuple)
                if not is_within(target, self.origin):
                    return Answer(answers=chain, follow=target)
                name = target
                continue
            records = next(iter(sets.values()), ()) if rtype == ANY else sets.get(rtype, ())
            found = tuple(record._replace(owner=name) for record in records)
            if not found:
                return Answer(answers=chain, authority=self._soa)
            return Answer(answers=(*chain, *found), additional=self._addresses(found))
        return Answer(rcode=Rcode.SERVFAIL, authoritative=False)

    def _find(self, name: Name) -> dict[int, tuple[Record, ...]] | None:
        """The name itself, else the wildcard of its closest encloser (RFC 4592 §3.3.1)."""
        if name in self._sets:
            return self._sets[name]
        for index in range(1, len(name) - len(self.origin) + 1):
            if name[index:] in self._sets:
                return self._sets.get((b"*", *name[index:]))
        return None

    def _addresses(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """Addresses of the targets inside the zone (RFC 1035 §3.3.9, RFC 2782)."""
        targets = [record.data[-1] for record in records if record.rtype in (15, 33, NS)]
        return tuple(
            extra
            for target in dict.fromkeys(t for t in targets if isinstance(t, tuple))
            for rtype in (A, AAAA)
            for extra in self._sets.get(target, {}).get(rtype, ())
        )
