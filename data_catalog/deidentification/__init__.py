"""De-identification of DICOM by PS3.15 Annex E, pseudonyms that follow from a key, and text burnt into pixels."""
