"""``python -m multidiff``: the command line."""

from multidiff.cli.main import main

if __name__ == "__main__":
    main()
