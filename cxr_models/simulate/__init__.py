"""Simulated radiographs from CTs: a cone beam through the patient, what the detector makes of it, and exact masks.

``materials`` (HU to soft tissue and bone) -> ``thorax`` (a CT made ready) -> ``camera`` and ``render`` (line integrals
along every ray, path lengths per structure) -> ``detector`` (quanta, scatter, noise, display) -> ``radiographs`` (one
exposure drawn from a seed) -> ``folder`` (on disk). ``nodules`` sets nodules into a CT, ``overlay`` onto a radiograph.
"""
