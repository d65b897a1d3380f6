"""The catalogue of a scan: one row an object, in the formats that astronomers' tools open."""
