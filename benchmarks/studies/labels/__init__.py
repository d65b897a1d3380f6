"""What is learnt without labels: how much a start from an embedding is worth, and which anomalies are seen."""
