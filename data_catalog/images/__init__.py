"""Pixels of radiographs: files that are no DICOM, levels, and the way onto a network's grid."""
