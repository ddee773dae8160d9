"""The secret that pseudonyms are made with: 32 random bytes in a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

KEY_BYTES = 32


def read_or_make_key(path: Path) -> bytes:
    """The key in ``path``; where there is none, a new one is made there, with mode 0600.

    Of several processes that make it at once, one wins and all read the same: the file appears whole or not at all.

    Raises:
        ValueError: the file does not hold 32 bytes.
        OSError: it cannot be read or made.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp: mode 0600
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(KEY_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(name, path)  # unlike a rename, it never replaces the key of another process
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                if not path.exists():
                    Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"Expected a key of {KEY_BYTES} bytes in {path}, but got {len(key)}. Put the right file there, or "
            "remove it to begin with new pseudonyms."
        )
    return key
