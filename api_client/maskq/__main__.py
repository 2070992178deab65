"""`python -m maskq`: the command line, where its script is not on PATH."""

from maskq.cli import main

if __name__ == "__main__":
    main()
