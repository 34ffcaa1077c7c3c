"""The shipped test kit: an in-process cluster, and the demo's servers.

Purpose. What tests, demos and users' own checks share. Each part is a module of its own, imported by its full name, so
that none pays for the imports of another: this package re-exports nothing.

Reading order. `cluster` (a real API server in the same process), `echo` (servers that say who answered).
"""
