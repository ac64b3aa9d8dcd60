"""`python -m keshi.cli`."""

from keshi.cli import main

if __name__ == "__main__":
    main()
