"""What an operator asks and decides."""
