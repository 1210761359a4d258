"""What people see: a model and a template for each page."""
