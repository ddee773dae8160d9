"""diffusers and transformers without their progress bars and notices, which say nothing to a user of this pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without the progress bars and notices of diffusers and transformers; their settings come back afterwards."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    for library in loggers:
        library.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity in zip(loggers, before, strict=True):
            library.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
