"""Two real processes on gloo: disjoint shares, averaged gradients, one writer, exact resume, failures that are told."""

import importlib
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from cxr_models import distributed
from cxr_models.augment import AugmentConfig
from cxr_models.training import TrainConfig, TrainingData, fit
from data_catalog.shards import Shard

ROOT = Path(__file__).resolve().parents[2]
UNCHANGED = AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))

DRAWS = """
import os
from dataclasses import dataclass

@dataclass(frozen=True)
class Logged:
    '''Writes down which process drew which rows; fails in all but the first where it shall.'''
    log: str
    first: int
    fail: bool = False

    def __call__(self, data, rows, generator):
        if self.fail and os.getpid() != self.first:
            raise OSError("the disk of the other process is gone")
        with open(f"{self.log}.{os.getpid()}", "a") as file:
            file.write(" ".join(str(row) for _, row in rows) + "\\n")
        assert type(data.shards[0].images).__name__ == "memmap"
        return data.whole(rows)
"""


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """The class ``Logged``, in a module that other processes find too."""
    (tmp_path / "logging_draws.py").write_text(DRAWS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("logging_draws", None)
    return importlib.import_module("logging_draws").Logged


@pytest.fixture
def mapped_data(tiny_data, tmp_path) -> TrainingData:
    """The discs in files, mapped."""
    shard = tiny_data.shards[0]
    for name in ("images", "labels"):
        np.save(tmp_path / f"{name}.npy", getattr(shard, name))
    images, labels = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))
    return replace(tiny_data, shards=[Shard(images, labels, [])])


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_two_processes_give_what_one_does(mapped_data, tiny_network, tmp_path, logged, monkeypatch):
    network = tiny_network.model_copy(update={"normalisation": "INSTANCE"})
    one = TrainConfig(epochs=3, batch_size=3, accumulate=2, augment=UNCHANGED, precision="fp32", validate_every=1)
    two = one.model_copy(update={"processes": 2})
    gradients = []
    clip = torch.nn.utils.clip_grad_norm_

    def watching(parameters, limit):
        parameters = list(parameters)
        gradients.append(torch.cat([parameter.grad.reshape(-1).clone() for parameter in parameters]))
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watching)
    threads = torch.get_num_threads()
    single = fit(mapped_data, network, one, tmp_path / "one.safetensors")
    records = []
    data = replace(mapped_data, draw=logged(str(tmp_path / "log"), os.getpid()))
    shared = fit(data, network, two, tmp_path / "two.safetensors", lambda record, epochs: records.append(record))
    steps = 3 * 2  # 9 rows: a step of 6, one of 3 (in one batch of 3: shares of 2 and 1)
    assert len(gradients) == 2 * steps
    torch.testing.assert_close(gradients[0], gradients[steps], atol=1e-6, rtol=1e-4)
    for name, tolerance in (("train_loss", 1e-4), ("val_loss", 1e-4), ("val_dice", 1e-3)):
        values = [[record[name] for record in result.history] for result in (single, shared)]
        assert values[0] == pytest.approx(values[1], abs=tolerance), name
    assert shared.history[-1]["train_loss"] < shared.history[0]["train_loss"]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    logs = sorted(tmp_path.glob("log.*"))
    assert len(logs) == 2
    drawn = [[line.split() for line in log.read_text().splitlines()] for log in logs]
    for epoch in range(3):
        shares = [[row for line in log[3 * epoch : 3 * epoch + 3] for row in line] for log in drawn]
        assert not set(shares[0]) & set(shares[1])
        assert sorted(map(int, shares[0] + shares[1])) == list(range(9))
    assert torch.get_num_threads() == threads
    assert not children()
    assert (distributed.rank(), distributed.size()) == (0, 1)


def test_what_went_wrong_in_another_process_is_told(mapped_data, tiny_network, tiny_training, tmp_path, logged):
    data = replace(mapped_data, draw=logged(str(tmp_path / "log"), os.getpid(), fail=True))
    config = tiny_training.model_copy(update={"processes": 2})
    with pytest.raises(RuntimeError) as caught:
        fit(data, tiny_network, config, tmp_path / "c.safetensors")
    assert "the disk of the other process is gone" in str(caught.value) + "".join(caught.value.__notes__)
    assert not children()
    assert fit(mapped_data, tiny_network, tiny_training, tmp_path / "d.safetensors").resumed_at == 0


SCRIPT = """
    import sys, torch
    from pathlib import Path
    import numpy as np
    from safetensors.torch import save_file
    from cxr_models import distributed
    from cxr_models.segmentation import SegmentationConfig
    from cxr_models.training import TrainConfig, TrainingData, fit
    from data_catalog.preprocess import PreprocessConfig
    from data_catalog.shards import Shard

    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))
    rows = [(0, i) for i in range(12)]
    data = TrainingData([Shard(images, labels, [])], rows[:9], rows[9:], "d" * 64, PreprocessConfig(size=32))
    config = TrainConfig.model_validate_json(sys.argv[2])
    result = fit(data, SegmentationConfig(channels=(4, 8, 16)), config, folder / "killed.safetensors",
                 lambda record, epochs: print(f"epoch {record['epoch']}\\n", end="", flush=True))
    print(f"resumed at {result.resumed_at}\\n", end="", flush=True)
    rank = torch.distributed.get_node_local_rank()
    save_file({k: v.contiguous() for k, v in result.weights.items()}, folder / f"weights-{rank}.safetensors")
"""


def test_a_killed_training_of_two_processes_goes_on_under_torchrun_to_the_bit(
    mapped_data, tiny_network, tiny_training, tmp_path
):
    config = tiny_training.model_copy(update={"processes": 2, "epochs": 3, "keep": "best", "validate_every": 1})
    undisturbed = fit(mapped_data, tiny_network, config, tmp_path / "a.safetensors")

    def die(record, epochs):
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        fit(mapped_data, tiny_network, config, tmp_path / "killed.safetensors", die)
    assert not children()
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, tmp_path / "script.py", tmp_path, config.model_dump_json()],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "epoch 1", "epoch 2", "epoch 3", "resumed at 1", "resumed at 1"]
    for rank in (0, 1):
        weights = load_file(tmp_path / f"weights-{rank}.safetensors")
        for name, value in undisturbed.weights.items():
            if rank == 0 or "num_batches" not in name:  # a counter: a last batch may have nothing for a process
                assert torch.equal(value, weights[name]), name


def test_alone_a_process_has_every_row_and_changes_nothing():
    assert list(distributed.shares(range(5), 2)) == [[0, 1], [2, 3], [4]]
    values = torch.ones(3)
    assert torch.equal(distributed.total(values), torch.ones(3))
    assert distributed.lowest(7, "cpu") == 7
    network = torch.nn.Linear(2, 2)
    assert distributed.combine(network, torch.tensor(2.0)) == 2
    assert network.weight.grad is None


def test_more_processes_than_gpus_are_refused_before_any_is_started(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="GPU for each of 2"), distributed.group(2, "cuda", print):
        pass


def test_part_of_a_mapped_array_travels_by_its_values(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12).reshape(3, 4))
    whole = np.load(tmp_path / "a.npy", mmap_mode="r")
    for array in (whole, whole[1:], whole.T):
        make, arguments, *_ = distributed._reduce_memmap(array)
        made = make(*arguments) if not _ else None
        if array is whole:
            assert isinstance(made, np.memmap)
            assert np.array_equal(made, array)
        else:
            assert made is None  # numpy's own way: with its bytes
