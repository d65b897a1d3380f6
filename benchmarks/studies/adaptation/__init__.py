"""Methods of adaptation compared over three gaps between two domains."""
