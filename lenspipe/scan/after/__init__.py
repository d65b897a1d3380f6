"""What follows a finished run, from its own record: catalogue, picture, explanation, stamps of graded candidates."""
