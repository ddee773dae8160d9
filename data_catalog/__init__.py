"""Reading, checking, converting and cataloguing radiographs. Knows numpy and DICOM, no torch, no Prefect."""
