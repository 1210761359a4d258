"""builder-web: receives finished builds, keeps, compares and shows them."""
