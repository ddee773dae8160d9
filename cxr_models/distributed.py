"""Several processes that train one network, each on its share of every batch (docs/decisions/0013).

The process that asks is rank 0 and starts the others; under ``torchrun`` all of them are there already.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessContext, ProcessException, ProcessExitedException, start_processes

T = TypeVar("T")
HERE = "127.0.0.1"
GRACE_S = 5.0
"""How long rank 0 waits for another process to say what went wrong in it."""
_place: ContextVar[tuple[int, int]] = ContextVar("place", default=(0, 1))


def rank() -> int:
    """Which of the processes this is; 0 reports and writes."""
    return _place.get()[0]


def size() -> int:
    """How many processes train together; 1 outside a :func:`group`."""
    return _place.get()[1]


@contextmanager
def group(processes: int, device: str, work: Callable[..., object], *arguments: Any) -> Iterator[str]:
    """For the block, this process is one of ``processes``; yields the device that is its own.

    Args:
        processes: how many.
        device: "cpu", or "cuda": each process has a GPU.
        work: what the other processes call, with their device and ``arguments``; a function of a module, not a
            lambda, since it is pickled. Memory-mapped arrays are opened again, not copied.
        arguments: for ``work``.

    Raises:
        ValueError: fewer GPUs than processes, or another number than ``torchrun`` started.
        RuntimeError: another process failed; its traceback is in the notes.
    """
    if dist.is_torchelastic_launched():
        dist.init_process_group(_backend(device))
        try:
            yield from _in_group(dist.get_rank(), dist.get_world_size(), processes, device, dist.get_node_local_rank())
        finally:
            dist.destroy_process_group()
        return
    if processes == 1:
        yield device
        return
    _check_gpus(processes, device)
    threads = max(1, torch.get_num_threads() // processes)
    ForkingPickler.register(np.memmap, _reduce_memmap)
    store = dist.TCPStore(HERE, 0, processes, is_master=True, wait_for_workers=False)
    started = start_processes(
        _help, (store.port, processes, device, threads, work, arguments), processes - 1, join=False, daemon=True
    )
    try:
        while not store.check([f"ready-{other}" for other in range(1, processes)]):
            started.join(0.1)  # raises where one ended
        with _threads(threads), _joined(store, 0, processes, device) as own:
            yield own
    except BaseException as error:
        _end(started, error)
        raise
    _wait(started, store)


def shares(rows: Sequence[T], images: int) -> Iterator[list[T]]:
    """This process's rows of each pass over ``images`` rows; passes without any for it are left out."""
    for start in range(0, len(rows), images):
        own = list(rows[start : start + images][rank() :: size()])
        if own:
            yield own


def own_generator(common: torch.Generator) -> torch.Generator:
    """A generator of this process alone, for one epoch.

    It is seeded from ``common``, which all processes hold in the same state and which moves on alike in all of them:
    a checkpoint needs no other. torch's own generator (dropout) gets the same seed.
    """
    seed = int(torch.randint(2**62, (1,), generator=common)) + rank()
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum of ``values`` over all processes, the same bits in each."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def lowest(value: int, device: str) -> int:
    """The lowest ``value`` of all processes."""
    values = torch.tensor([value], device=device)
    if size() > 1:
        dist.all_reduce(values, dist.ReduceOp.MIN)
    return int(values)


@torch.no_grad()
def combine(network: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """Sum gradients and ``loss`` over all processes, in place, and average running statistics; one message in all.

    Each process's loss holds its images by their share of the whole step, so the sum is the step's mean. Afterwards
    all networks are the same but for counters.

    Args:
        network: after backward; a parameter without a gradient counts as 0.
        loss: scalar float32.

    Returns:
        Scalar float32, the step's loss.
    """
    if size() == 1:
        return loss
    gradients = [_gradient(parameter) for parameter in network.parameters() if parameter.requires_grad]
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    planes = [loss.reshape(1), *gradients, *(buffer / size() for buffer in statistics)]
    flat = total(torch.cat([plane.reshape(-1) for plane in planes]))
    parts = flat.split([plane.numel() for plane in planes])
    for target, part in zip([*gradients, *statistics], parts[1:], strict=True):
        target.copy_(part.view(target.shape))
    return parts[0][0]


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:  # this process had no image of the step
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _help(index: int, port: int, processes: int, device: str, threads: int, work: Any, arguments: Any) -> None:
    """What a started process runs."""
    torch.set_num_threads(threads)
    store = dist.TCPStore(HERE, port, processes, is_master=False)
    store.set(f"ready-{index + 1}", "1")
    with _joined(store, index + 1, processes, device) as own:
        work(own, *arguments)
        store.set(f"done-{index + 1}", "1")


@contextmanager
def _joined(store: dist.Store, own: int, processes: int, device: str) -> Iterator[str]:
    dist.init_process_group(_backend(device), store=store, rank=own, world_size=processes)
    try:
        yield from _in_group(own, processes, processes, device, own)
    finally:
        dist.destroy_process_group()


def _in_group(own: int, started: int, expected: int, device: str, gpu: int) -> Iterator[str]:
    if started != expected:
        raise ValueError(
            f"Expected as many processes as `processes` says ({expected}), but torchrun started {started}: "
            "make --nproc-per-node times --nnodes the same"
        )
    token = _place.set((own, started))
    try:
        if device.startswith("cuda"):
            torch.cuda.set_device(gpu)
        yield f"cuda:{gpu}" if device.startswith("cuda") else device
    finally:
        _place.reset(token)


def _backend(device: str) -> str:
    return "nccl" if device.startswith("cuda") else "gloo"


def _check_gpus(processes: int, device: str) -> None:
    if device.startswith("cuda") and torch.cuda.device_count() < processes:
        raise ValueError(
            f"Expected a GPU for each of {processes} processes, but got {torch.cuda.device_count()}: "
            "lower `processes`, or use device=cpu"
        )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _wait(started: ProcessContext, store: dist.TCPStore) -> None:
    """Wait for the other processes to end. One that had done its work may abort while torch shuts down in it."""
    try:
        while not started.join():
            pass
    except ProcessExitedException as failure:
        if failure.signal_name is None or not store.check(
            [f"done-{other}" for other in range(1, len(started.processes) + 1)]
        ):
            raise


def _end(started: ProcessContext, error: BaseException) -> None:
    """End the other processes; where one of them failed first, note how on ``error``."""
    try:
        if isinstance(error, RuntimeError):  # a broken connection is all that rank 0 sees of it
            started.join(GRACE_S)
    except ProcessException as failure:
        error.add_note(f"Another of the training processes failed:{failure.msg}")
    for process, file in zip(started.processes, started.error_files, strict=True):
        process.kill()
        process.join()
        Path(file).unlink(missing_ok=True)  # torch leaves its traceback behind


def _reduce_memmap(array: np.memmap) -> Any:
    """How a memory-mapped array travels to another process: by its path, where it is the whole file's array."""
    if isinstance(array.base, mmap.mmap) and array.flags.c_contiguous and array.filename is not None:
        return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape)
    return np.asarray(array).__reduce__()
