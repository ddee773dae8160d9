"""Ranges that simulation draws from, as fields of its configurations."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if not span[0] <= span[1]:
        raise ValueError(f"Expected (low, high) with low <= high, but got {span}")
    return span


def above(span: tuple[float, float], least: float) -> tuple[float, float]:
    """``span``, where all of it lies above ``least``; ValueError otherwise."""
    if span[0] <= least:
        raise ValueError(f"Expected values above {least}, but got {span}")
    return span


def within(span: tuple[float, float], least: float, most: float) -> tuple[float, float]:
    """``span``, where all of it lies from ``least`` to ``most``; ValueError otherwise."""
    if not least <= span[0] or not span[1] <= most:
        raise ValueError(f"Expected values from {least:g} to {most:g}, but got {span}")
    return span


Span = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""(low, high): drawn evenly between them; twice the same value fixes it."""
Positive = Annotated[Span, AfterValidator(lambda span: above(span, 0.0))]
