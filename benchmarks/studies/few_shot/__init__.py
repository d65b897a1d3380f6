"""A handful of examples: n-way k-shot accuracy, graded lenses, and graph networks at equal size."""
