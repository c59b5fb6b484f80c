"""What would have come of it? The past replayed in event time."""
