"""Make ``flows/prefect-<version>.db.gz``: the empty database that Prefect's own migrations make, compressed.

Run it after Prefect's version changes (``make seed``), and delete the file of the old version. The result has a schema
and the one row that names the schema's revision; no data.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

FLOWS = Path(__file__).resolve().parent.parent / "flows"


def main() -> None:
    """Migrate an empty database in a temporary folder, compact it, and write it beside `flows/servers.py`."""
    target = FLOWS / f"prefect-{importlib.metadata.version('prefect')}.db.gz"
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PREFECT_HOME": folder, "DO_NOT_TRACK": "1"}
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env=environment, check=True)
        compact = Path(folder) / "compact.db"
        with sqlite3.connect(Path(folder) / "prefect.db") as connection:
            connection.execute("VACUUM INTO ?", (str(compact),))
        target.write_bytes(gzip.compress(compact.read_bytes(), mtime=0))
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
