"""How good the encoder is, beside what, and what each part adds."""
