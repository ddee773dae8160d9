"""Masks of every encoding, how they were drawn, and whether they can be right."""
