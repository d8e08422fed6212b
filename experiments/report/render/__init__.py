"""Pages as text and as a site."""
