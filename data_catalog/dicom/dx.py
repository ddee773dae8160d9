"""The attributes that make a data set a Digital X-Ray image for presentation (PS3.3 A.26 and C.8.11)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import Code, codes

from data_catalog.dicom.acquisition import Acquisition


def add_dx(ds: Dataset, acquisition: Acquisition) -> None:
    """Add DX series, anatomy, image, detector, positioning, generation and VOI LUT modules to ``ds``.

    The window covers all stored values, so that reading the file back gives the levels unchanged.
    """
    _add_series_and_anatomy(ds, acquisition)
    _add_image(ds, acquisition.bits_stored)
    _add_detector_and_geometry(ds, acquisition)


def _add_series_and_anatomy(ds: Dataset, acquisition: Acquisition) -> None:
    """C.8.11.1 DX series, C.8.11.2 DX anatomy imaged, C.8.11.5 DX positioning."""
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = Sequence([_coded(codes.SCT.Chest)])
    ds.ViewPosition = acquisition.view
    view = codes.SCT.PosteroAnterior if acquisition.view == "PA" else codes.SCT.AnteroPosterior
    ds.ViewCodeSequence = Sequence([_coded(view)])
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence([])
    ds.PatientOrientation = ["L", "F"]
    ds.PositionerType = "NONE"


def _add_image(ds: Dataset, bits: int) -> None:
    """C.8.11.3 DX image, C.11.2 VOI LUT, C.7.6.14 acquisition context."""
    ds.ImageType = ["DERIVED", "PRIMARY", ""]
    ds.AcquisitionDate = ds.AcquisitionTime = None
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1  # larger values, less X-ray: bone is bright
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.PresentationLUTShape = "IDENTITY"
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    ds.WindowCenter, ds.WindowWidth = str(1 << (bits - 1)), str(1 << bits)
    ds.VOILUTFunction = "LINEAR"
    ds.AcquisitionContextSequence = Sequence([])


def _add_detector_and_geometry(ds: Dataset, acquisition: Acquisition) -> None:
    """C.8.11.4 DX detector, C.8.7.10 geometry, C.8.11.8 generation."""
    ds.DetectorType = None
    ds.DetectorConfiguration = "AREA"
    ds.ImagerPixelSpacing = [f"{value:.8g}" for value in acquisition.imager_pixel_spacing_mm]
    ds.DistanceSourceToDetector = f"{acquisition.distance_source_to_detector_mm:.8g}"
    ds.DistanceSourceToPatient = f"{acquisition.distance_source_to_patient_mm:.8g}"
    if acquisition.kvp is not None:
        ds.KVP = f"{acquisition.kvp:.8g}"
    if acquisition.exposure_mas is not None:
        ds.Exposure = round(acquisition.exposure_mas)
        ds.ExposureInuAs = round(acquisition.exposure_mas * 1000)


def _coded(code: Code) -> Dataset:
    """A code sequence item (PS3.3, table 8.8-1)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
