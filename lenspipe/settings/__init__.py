"""What a settings file may hold, told by its own class: keys, commented TOML, pages of reference."""
