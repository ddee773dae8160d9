"""How a command ends: exit codes, and exceptions as one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3
"""All done; failed; wrong usage; done, but some inputs were refused."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="All is kept here.  \\[default: $CXR_HOME or ./cxr-home]", show_default=False),
]
SixteenBitPng = Annotated[
    bool, typer.Option("--sixteen-bit-png", help="Accept 16-bit PNG, all 16 bits taken as grey levels.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]


@contextmanager
def reporting_errors(as_json: bool) -> Iterator[None]:
    """Turn exceptions into one sentence and an exit code; the traceback goes to a log only where it helps."""
    from flows.home import UsageError

    try:
        yield
    except (typer.Exit, typer.BadParameter, typer.Abort):
        raise
    except UsageError as error:
        _complain(str(error), as_json)
        raise typer.Exit(USAGE) from error
    except KeyboardInterrupt as error:
        _complain("Interrupted. The same command goes on where this one stopped.", as_json)
        raise typer.Exit(130) from error
    except Exception as error:
        expected = isinstance(error, (ValueError, OSError, RuntimeError))
        _complain(str(error) if expected and str(error) else f"{type(error).__name__}: {error}", as_json)
        raise typer.Exit(FAILED) from error


def _complain(text: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": text}))
    print(f"cxr: {text}", file=sys.stderr)
