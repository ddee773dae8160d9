"""A digital phantom: labelled thorax volumes, varied by seed, projected to radiographs whose masks agree exactly.

``body`` (a patient's measures) -> ``anatomy`` (labelled voxels; ``shapes``, ``skeleton`` and ``vessels`` draw them) ->
``projection`` (one nanodrr render of path lengths per label, then noise, scatter and display) -> ``cohort`` (on disk).
"""

from cxr_models.phantom.cohort import (
    NoduleTruth,
    PhantomConfig,
    PhantomPatient,
    code_version,
    cohort_is_current,
    render_cohort,
    render_patient,
)

__all__ = [
    "NoduleTruth",
    "PhantomConfig",
    "PhantomPatient",
    "code_version",
    "cohort_is_current",
    "render_cohort",
    "render_patient",
]
