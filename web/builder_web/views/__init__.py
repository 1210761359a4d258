"""The addresses of the site, a module for each group of them."""
