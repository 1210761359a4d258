"""What builder-web remembers: the tables of the original, schema version 18, and some of its own."""
