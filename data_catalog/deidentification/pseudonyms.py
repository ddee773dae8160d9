"""New names for old ones, that follow from a secret key: the same everywhere, and of no use without the key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass, field

from pydicom.uid import UID, UID_dictionary

from data_catalog.deidentification.dates import MAX_SHIFT_DAYS


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Keyed, one-way replacements (HMAC-SHA-256).

    Whoever has the key can check a guess; nobody can without it. Two keys give unrelated pseudonyms.

    Attributes:
        key: 32 secret bytes.
    """

    key: bytes = field(repr=False)

    def uid(self, original: str) -> UID:
        """A UID in the place of ``original``: 2.25 and the integer of a UUID (PS3.5 B.2); registered ones stay."""
        if original in UID_dictionary:
            return UID(original)
        return UID(f"2.25.{uuid.UUID(bytes=self._digest('uid', original)[:16], version=5).int}")

    def patient(self, original: str) -> str:
        """PatientID and PatientName in the place of ``original``: "P" and 16 letters and digits."""
        return "P" + base64.b32encode(self._digest("patient", original)[:10]).decode()

    def shift_days(self, patient: str) -> int:
        """Days to add to every date of ``patient``: -1 to -3650."""
        return -1 - int.from_bytes(self._digest("shift", patient)[:8], "big") % MAX_SHIFT_DAYS

    @property
    def key_digest(self) -> str:
        """Names the key in cache keys and does not tell it."""
        return self._digest("digest", "").hex()[:32]

    def _digest(self, what: str, text: str) -> bytes:
        return hmac.new(self.key, f"{what}\0{text}".encode(errors="surrogateescape"), hashlib.sha256).digest()
