"""The page to look at candidates: one folder that opens from disk, without a server or a network."""
