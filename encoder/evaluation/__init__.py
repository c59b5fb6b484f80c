"""Compares the encoder with baselines, and measures what each part adds."""
