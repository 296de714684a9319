"""`python -m starling.cli` is `starling`."""

from starling.cli import main

main()
