"""Models that a scan shows its candidates: one file per kind, behind one contract."""
