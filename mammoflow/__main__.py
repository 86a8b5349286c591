"""`python -m mammoflow` is the command `mammoflow`."""

from mammoflow.commands import main

main()
