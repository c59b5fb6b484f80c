"""Client plumbing without domain words."""
