"""The ledger: the append-only store of all that happened, and the owner of the offsets."""
