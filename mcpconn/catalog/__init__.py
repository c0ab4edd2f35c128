"""The catalogue: what a server offers, kept across its sessions."""

from mcpconn.catalog.catalog import Catalog
from mcpconn.catalog.entries import CatalogChange
from mcpconn.catalog.listing import KINDS, LISTS, PAGES, Listing, collect
from mcpconn.catalog.lists import Lister
from mcpconn.catalog.schedule import COURTESY, CROWD_COURTESY, DEBOUNCE, GAP_INTERVAL

__all__ = [
    "COURTESY",
    "CROWD_COURTESY",
    "DEBOUNCE",
    "GAP_INTERVAL",
    "KINDS",
    "LISTS",
    "PAGES",
    "Catalog",
    "CatalogChange",
    "Lister",
    "Listing",
    "collect",
]
