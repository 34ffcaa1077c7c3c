"""`make bench`: figures of the running system, each beside a peer measured in the same run.

One JSON line per figure: name, unit, median, minimum, maximum, number of runs, the bound it must keep (if any) and the
peer's median. Everything runs in clusters of the benchmark's own and stops by itself.
"""
