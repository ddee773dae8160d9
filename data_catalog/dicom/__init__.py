"""DICOM radiographs: rules, decoding, the grayscale pipeline, spacing, and writing."""
