"""Open boards: one file a board, and what they share."""
