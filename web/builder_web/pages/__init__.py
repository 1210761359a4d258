"""What people see: a model and a template for each page."""

from builder_web.pages.rendering import SECURITY_POLICY as SECURITY_POLICY
from builder_web.pages.rendering import render as render
from builder_web.pages.rendering import render_feed as render_feed
