"""Content digests: the identity of files, configurations and code that caching and UIDs are built on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, as 64 hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(*parts: Any) -> str:
    """SHA-256 over the canonical JSON of ``parts`` (keys sorted), as 64 hex digits.

    Pydantic models enter by their fields, paths by their text, mappings and sequences by their content.

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    >>> digest_of("ab", "c") == digest_of("a", "bc")
    False
    """
    return hashlib.sha256(json.dumps(_plain(parts), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def source_digest(*modules: ModuleType) -> str:
    """SHA-256 over the source text of modules, and of every module of a package, as 64 hex digits.

    The code version in a cache key: an edited function never gets an old result, and nobody has to raise a number.
    """
    files: set[Path] = set()
    for module in modules:
        if hasattr(module, "__path__"):
            files.update(path for folder in module.__path__ for path in Path(folder).rglob("*.py"))
        else:
            files.add(Path(str(module.__file__)))
    return digest_of([[path.name, file_digest(path)] for path in sorted(files)])


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"Expected JSON-like values to digest, but got {type(value).__name__}: {value!r}")
