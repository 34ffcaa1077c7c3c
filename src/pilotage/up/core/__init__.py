"""The pure half of `up`: what a cluster consists of, decided without touching anything.

`config` (what the user may say) → `plan` (addresses, namespaces, routes) → `processes` (who runs where, as whom);
`state` is what the supervisor knows of each of them.
"""
