"""Losses side by side: the same small training with each, scored on patients that none of them saw.

    python bench/losses.py --data ../shared/data [--epochs 60] [--seeds 2]

Only patients that the bundled lung model was not tested on take part: three in four train, the others score. Prints
JSON: mean Dice on the network's grid per loss, over the seeds, and each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pandas as pd

from cxr_models.bundled import BUNDLED
from cxr_models.losses import LossName
from cxr_models.package import read_card
from cxr_models.segmentation import SegmentationConfig
from cxr_models.training import TrainConfig, TrainingData, fit
from data_catalog.preprocess import PreprocessConfig, encode_labels, preprocess
from data_catalog.radiograph import MaskSet, Structure
from data_catalog.reading import read_radiograph
from data_catalog.shards import Shard

SIZE = 192


def rows_of(data: Path) -> TrainingData:
    """Radiographs of cxr-lung that the bundled model was not tested on; a quarter of the patients validates."""
    config = PreprocessConfig(size=SIZE)
    table = pd.read_csv(data / "cxr-lung" / "manifest.csv")
    table = table[~table.image_sha256.isin(read_card(BUNDLED / "cxr-lung").test_rows)]
    images, labels, sides = [], [], []
    for row in table.itertuples():
        radiograph = read_radiograph(data / "cxr-lung" / row.image)
        mask = cv2.imread(str(data / "cxr-lung" / row.mask), cv2.IMREAD_GRAYSCALE)
        masks = MaskSet({Structure.LUNG: mask == 255}, mask == 127)
        images.append(preprocess(radiograph, config))
        labels.append(encode_labels(masks, (Structure.LUNG,), SIZE, radiograph.aspect))
        sides.append(int(hashlib.sha256(str(row.patient_id).encode()).hexdigest(), 16) % 4 == 1)
    shard = Shard(np.stack(images).astype(np.float16), np.stack(labels), [])
    rows = [(0, index) for index in range(len(sides))]
    train, val = ([row for row, held in zip(rows, sides, strict=True) if held == side] for side in (False, True))
    return TrainingData([shard], train, val, "bench", config)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    data, found = rows_of(arguments.data), {}
    network = SegmentationConfig(input="both", local_side=SIZE)
    for loss in get_args(LossName):
        dice = []
        for seed in range(arguments.seeds):
            config = TrainConfig(epochs=arguments.epochs, loss=loss, seed=seed, validate_every=arguments.epochs)
            with tempfile.TemporaryDirectory() as folder:
                dice.append(fit(data, network, config, Path(folder) / "c.safetensors").history[-1]["val_dice"])
        found[loss] = {"dice": float(np.mean(dice)), "each": dice}
        print(json.dumps({loss: found[loss]}), flush=True)
    print(json.dumps({"train": len(data.train), "val": len(data.val), "epochs": arguments.epochs, "losses": found}))


if __name__ == "__main__":
    main()
