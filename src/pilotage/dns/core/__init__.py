"""Deciding what to answer: Services, slices and namespaces in, wire bytes out. No I/O.

Reading order: `name`, `record`, `records` (objects → record sets), `zone` (question → answer), `wire` (query and answer
↔ bytes), `table` (all of it kept up to date, with the compiled answers), `upstream` (what may be believed and kept of
an upstream's answer). Beside them `askers`, `custom`, `local`, `leases`, `ttl` for one feature each.
"""
