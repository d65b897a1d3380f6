"""Many trainings compared: the space of a sweep, its trials, their table and page."""
