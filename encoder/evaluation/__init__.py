"""How good is the encoder, beside what, and what does each part add?"""
