"""``python -m unmask.cli``."""

from unmask.cli.main import main

main()
