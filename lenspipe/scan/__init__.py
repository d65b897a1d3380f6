"""A shard from pixels to a row, the ledger of what is done, and the plain loop over shards."""
