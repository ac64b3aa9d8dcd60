"""How fast keshi is, next to how fast its broker would let it be: `make bench`."""
