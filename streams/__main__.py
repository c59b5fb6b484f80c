"""``python -m streams``: the command ``coldstart`` where its script is not on the path."""

from streams.cli import main

main()
