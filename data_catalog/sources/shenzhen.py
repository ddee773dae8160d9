"""Adapter of the Shenzhen set: 662 radiographs of Shenzhen No. 3 Hospital; 566 of them have lung masks by others.

The masks are those of Stirenko et al. (2018), published apart as ``mask/CHNCXR_0001_0_mask.png``.
"""

from __future__ import annotations

from functools import partial

from data_catalog.radiograph import Structure
from data_catalog.source import Source
from data_catalog.sources import nlm
from data_catalog.sources.nlm_files import Layout
from data_catalog.sources.nlm_readings import Reading

ADULT = 18.0


def view(reading: Reading) -> str:
    """PA of adults; "" otherwise: children's are AP in part (Jaeger 2014), and no file says which."""
    return "PA" if reading.age_years is not None and reading.age_years >= ADULT else ""


SET = nlm.NlmSet(
    kind="shenzhen",
    layout=Layout("CHNCXR", "ChinaSet_AllFiles.zip", {"mask": "", "masks": ""}, "_mask"),
    normal=326,
    abnormal=336,
    masks=566,
    always_masked=False,
    view=view,
)
SOURCE = Source(
    kind=SET.kind,
    title="Shenzhen Hospital chest X-ray set",
    gives="image, finding, age, sex; lungs (heart left out) where the masks of Stirenko et al. lie beside it",
    licence=nlm.LICENCE,
    url=nlm.URL,
    obtain="Download ChinaSet_AllFiles.zip from the National Library of Medicine, and put the folder `mask` beside it.",
    structures=(Structure.LUNG,),
    scan=partial(nlm.scan, SET),
    check=partial(nlm.check, SET),
)
