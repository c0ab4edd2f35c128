"""What a picture of the machine says, for tests that look at nothing else of it."""

from __future__ import annotations

from mcpconn.diagram.mermaid_reading import mermaid_pictures
from mcpconn.diagram.picture import Edge
from mcpconn.diagram.scxml import scxml_picture


def read_mermaid(text: str) -> set[Edge]:
    """The edges of all Mermaid state diagrams in a text, as (source, event, target)."""
    return {edge for picture in mermaid_pictures(text) for edge in picture.edges}


def read_scxml(text: str) -> set[Edge]:
    """The edges of an SCXML document, as (source, event, target)."""
    return set(scxml_picture(text).edges)
