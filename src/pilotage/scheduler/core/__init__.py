"""The scheduler's decisions as values: queue, cluster snapshot, filters, scores, the scheduling cycle.

Nothing here waits or reads a clock; `scheduler.py` beside this package moves objects in and decisions out.
"""
