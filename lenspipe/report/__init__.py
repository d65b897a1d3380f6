"""What people look at: plots, pages, pictures."""
