"""What is used of MONAI, imported here and nowhere else.

``import monai`` imports all of it, and with it transformers where that is installed, for a network that nobody needs:
1.5 of 5 seconds of every command. So transformers is out of sight for as long as that takes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _out_of_sight(name: str) -> Iterator[None]:
    """Importing ``name`` fails within, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what Python looks for: the import is refused
    try:
        yield
    finally:
        del sys.modules[name]


with _out_of_sight("transformers"):
    from monai.inferers import sliding_window_inference as sliding_window_inference
    from monai.losses import DiceLoss as DiceLoss
    from monai.losses import TverskyLoss as TverskyLoss
    from monai.metrics.utils import get_mask_edges as get_mask_edges
    from monai.metrics.utils import get_surface_distance as get_surface_distance
    from monai.networks.nets import BasicUNet as BasicUNet
    from monai.networks.nets import UNet as UNet
