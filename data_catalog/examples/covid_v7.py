"""The layout of ``covid-v7`` is that of pairs."""

from data_catalog.examples.pairs import build

__all__ = ["build"]
