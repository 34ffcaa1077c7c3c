"""libnftables in this process: nft text in, JSON or text out.

Stands apart because it is the only user of ctypes. Keeping one context saves the 5 ms an `nft` process costs. The
library prints errors into a buffer; here they become `NftError` once. nft 1.0.6 can also end the process: it aborts on
an `update` of a map whose key or value exceeds 16 bytes, crashes on listing a set declared by `typeof jhash`, and
refuses rules that use a set declared by `typeof` in an earlier transaction. `core.expressions` knows only forms that
were tried. Belongs to the network namespace in which it was made.

Specification: libnftables(3), libnftables-json(5).
"""

import ctypes
from typing import Any

from pilotage.nft.errors import NftError

_LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4  # nftables/libnftables.h: NFT_CTX_OUTPUT_JSON


class Libnftables:
    """One context. Not safe for two threads at once; releases the interpreter lock while it runs."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise NftError("libnftables is missing: apt-get install nftables") from error
        self._declare()
        self._context: int | None = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftError("libnftables could not make a context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def _declare(self) -> None:
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint
        signatures: dict[str, tuple[list[Any], Any]] = {
            "nft_ctx_new": ([ctypes.c_uint32], pointer),
            "nft_ctx_free": ([pointer], None),
            "nft_ctx_buffer_output": ([pointer], ctypes.c_int),
            "nft_ctx_buffer_error": ([pointer], ctypes.c_int),
            "nft_ctx_get_output_buffer": ([pointer], text),
            "nft_ctx_get_error_buffer": ([pointer], text),
            "nft_ctx_output_set_flags": ([pointer, number], None),
            "nft_run_cmd_from_buffer": ([pointer, text], ctypes.c_int),
        }
        for name, (arguments, result) in signatures.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, result

    def run(self, commands: str, *, json: bool = False) -> str:
        """Carry out commands as one transaction and return what they print."""
        if self._context is None:
            raise NftError("libnftables context is closed")
        self._library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON if json else 0)
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftError("nft: " + " ".join(errors.decode(errors="replace").split()))
        return output.decode()

    def close(self) -> None:
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None
