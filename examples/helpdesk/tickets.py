"""Makes a help desk to try: `python examples/helpdesk/tickets.py tickets.db`. The people are invented."""

import sqlite3
import sys
from contextlib import closing

TICKETS = (
    ("T-1", "hanako.keshi@customer.example", "Please tell me what you know about me."),
    ("T-2", "Hanako.Keshi@customer.example", "Please delete it."),
    ("T-3", "hanako_keshi@customer.example", "My parcel is late."),
)

with closing(sqlite3.connect(sys.argv[1])) as db, db:
    db.execute("CREATE TABLE tickets (id TEXT PRIMARY KEY, email TEXT NOT NULL, text TEXT NOT NULL, hidden_by TEXT)")
    db.executemany("INSERT INTO tickets VALUES (?, ?, ?, NULL)", TICKETS)
