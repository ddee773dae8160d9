"""Ribs off a radiograph: what is bone is estimated and taken away; everything else stays, to the bit."""
