"""The shipped test kit: an in-process cluster, suites for each seam, and the demo's servers.

Purpose: what tests, demos and users' own checks share.
Inputs → outputs: a test's wishes → a real API server in its process, builders, suites that run on real and fake alike.
Invariants: each part is imported by its full name, so that none pays for the imports of another: nothing is
re-exported here.
Reading order: `cluster` (a real API server in the same process), `echo` (servers that say who answered).
Specifications: none.
"""
