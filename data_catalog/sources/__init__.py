"""Source adapters: each turns one published layout into manifest rows and refusals."""
