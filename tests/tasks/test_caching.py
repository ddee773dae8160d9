"""Keys decide: same content, nothing runs; other content or a lost output, it runs again."""

from pathlib import Path

import pytest
from prefect import flow, task

from tasks.caching import BY_KEY, Steps


@task(name="write", cache_policy=BY_KEY, persist_result=True)
def write(key: str, out: Path) -> str:
    """Append a line, so that runs can be counted."""
    with out.open("a") as stream:
        stream.write(f"{key}\n")
    return key


@flow(name="caching-test")
def two_steps(keys: list[str], out: Path) -> dict[str, dict[str, int]]:
    """Run one step per key."""
    steps = Steps()
    for key in keys:
        steps.submit(write, outputs=[out], key=key, out=out).result()
    return steps.tally()


@pytest.mark.usefixtures("prefect_api")
def test_a_known_key_is_not_run_again_unless_its_output_is_gone(tmp_path):
    out, stem = tmp_path / "log.txt", tmp_path.name
    assert two_steps([f"{stem}-a", f"{stem}-b"], out) == {"write": {"ran": 2, "cached": 0}}
    assert two_steps([f"{stem}-a", f"{stem}-c"], out) == {"write": {"ran": 1, "cached": 1}}
    assert out.read_text().split() == [f"{stem}-a", f"{stem}-b", f"{stem}-c"]
    out.unlink()
    assert two_steps([f"{stem}-a"], out) == {"write": {"ran": 1, "cached": 0}}
