"""CTs: reading them, their labels, what density shows of anatomy, and the readings of LIDC-IDRI."""
