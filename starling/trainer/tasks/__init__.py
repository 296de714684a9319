"""Tasks that a spec can name, and the way to users' own."""
