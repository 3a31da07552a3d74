"""``python -m winnow``."""

from winnow.cli import main

main()
