"""The page at `/`: images in, masks to look at. Static files; it calls the API as any browser does."""

from maskq_gateway.page.routes import add_page

__all__ = ["add_page"]
