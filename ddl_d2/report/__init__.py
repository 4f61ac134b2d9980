"""Evidence for people: examination records, provenance, pages; never imported by the rooms below."""
