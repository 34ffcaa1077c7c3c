"""Memory: what a process has taken and needs no more, and what it shares with those it forks.

Apart because it knows how allocators work: the C library's, and Python's own. Called by whoever made much at its start
and lives long, or forks.

Specification: malloc_trim(3); CPython's Objects/obmalloc.c (pools of 16 KiB, one size of block each).
"""

import ctypes

_POOL_BYTES, _POOL_HEAD_BYTES = 16 * 1024, 48
_BLOCK_STEP, _BLOCK_BYTES_MAX = 16, 512  # larger ones are the C library's
_HEAP_SIZES = tuple(1 << power for power in range(16, 4, -1))  # larger ones are mapped, each by itself
_HEAP_MARGIN_BYTES, _HEAP_BYTES_MAX = 4096, 1 << 30
_BYTES_HEAD = 33  # of an object of bytes: the smallest that can be made of any size


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can; takes milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def fill_holes() -> list[bytes]:
    """Take every free block between what is allocated now; Python's are taken for as long as the result is kept.

    Call it before forking. A child that put its new objects there would write to pages it shares, one object a page,
    and so come to own them all; with the holes filled its objects go to pages of their own, close together. Costs no
    memory but holes, and 4 ms.
    """
    _fill_heap()
    fillers: list[bytes] = []
    smallest = -(-_BYTES_HEAD // _BLOCK_STEP) * _BLOCK_STEP
    for size in range(smallest, _BLOCK_BYTES_MAX + 1, _BLOCK_STEP):
        blocks_per_pool = (_POOL_BYTES - _POOL_HEAD_BYTES) // size
        run: list[bytes] = []  # made one after another in the same pool
        while len(run) < blocks_per_pool:
            filler = bytes(size - _BYTES_HEAD)
            if run and id(filler) // _POOL_BYTES != id(run[0]) // _POOL_BYTES:
                fillers += run
                run = []
            run.append(filler)
        # A pool that took them all was empty: there is no hole of this size left, and this pool becomes free again.
    return fillers


def _fill_heap() -> None:
    """The same for the C library's heap; what is taken there stays taken. Without glibc nothing happens."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        return
    library.malloc_trim(0)  # what is free at the heap's end goes, so that only holes are left below it
    library.sbrk.restype = library.malloc.restype = ctypes.c_void_p
    library.sbrk.argtypes, library.malloc.argtypes = (ctypes.c_ssize_t,), (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    end = library.sbrk(0) - _HEAP_MARGIN_BYTES
    for size in _HEAP_SIZES:
        while (block := library.malloc(size)) and end - _HEAP_BYTES_MAX < block < end:
            pass
        library.free(block)
