"""The past replayed in event time."""
