"""A world in compressed time, against which ways of pushing are compared."""
