"""Thin Prefect tasks: open paths, call one plain function, save, return a small record."""
