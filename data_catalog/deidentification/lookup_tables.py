"""LUTData without what may hide behind the table."""

from __future__ import annotations

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset


def announced_table(item: Dataset, element: DataElement) -> DataElement | None:
    """LUTData cut to the entries that LUTDescriptor of the same ``item`` announces (PS3.3 C.11.1.1.1).

    Entries are words of 16 bits; those of 8 bits may be one byte each.

    Returns:
        the element; None where there is no valid descriptor, or less than it announces.
    """
    try:
        count, _, bits = (int(value) for value in item["LUTDescriptor"].value)
    except Exception:  # missing, damaged, not three numbers
        return None
    count = count or 1 << 16
    if not (0 < count <= 1 << 16 and 1 <= bits <= 16):
        return None
    if element.VR in ("US", "SS"):
        words = list(element.value) if element.VM > 1 else [element.value]
        least = count if bits > 8 or len(words) >= count else (count + 1) // 2  # two 8-bit entries in each word
        return DataElement(element.tag, element.VR, words[:least]) if len(words) >= least else None
    data = element.value
    if not isinstance(data, bytes):
        return None
    packed = bits <= 8 and (len(data) < 2 * count or (any(data[: 2 * count : 2]) and any(data[1 : 2 * count : 2])))
    size = count if packed else 2 * count
    if len(data) < size:
        return None
    return DataElement(element.tag, element.VR, data[:size] + b"\0" * (size % 2))
