"""`python -m c2l_lab` runs `c2l-lab`."""

from c2l_lab.cli import main

if __name__ == "__main__":
    main()
