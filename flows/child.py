"""Run a module as ``python -m`` does, in a process that ends when the one that started it does.

Started by path (``python flows/child.py prefect server start``), by :mod:`flows.processes`. It asks the kernel for a
SIGTERM when the parent dies, which covers a parent that is killed and cannot clean up. Doing it here and not between
fork and exec keeps the parent free to have threads.
"""

from __future__ import annotations

import ctypes
import gc
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Ask for a SIGTERM when the parent dies (Linux; elsewhere nothing happens), and leave if it is dead already."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("The process that started this one is gone: leaving.")


def main() -> None:
    """``child.py PARENT_PID MODULE [ARGUMENT ...]``."""
    parent, module, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    sys.path.pop(0)  # this folder: its modules are not top-level ones
    gc.set_threshold(50_000, 20, 20)  # imports make many objects and no garbage: a fifth off the server's start
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
