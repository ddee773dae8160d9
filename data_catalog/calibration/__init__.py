"""Step 0 for films: a camera's geometry from photographs of a board, and a photographed film as a calibrated image."""
