"""The catalogue of a scan: one row per object, in the formats that astronomers' tools open."""
