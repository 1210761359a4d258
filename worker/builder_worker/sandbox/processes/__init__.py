"""How a child is started, watched, waited for and killed."""
