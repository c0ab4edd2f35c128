"""Diagrams and tables of the machine, generated from `TRANSITIONS`; and comparison of other diagrams with it.

    diagram.mermaid(highlight=connection)     a Mermaid state diagram, the connection's state marked
    diagram.svg(manager)                      how many connections of a manager are in each state
    diagram.dot()  diagram.scxml()  diagram.markdown_table()
    diagram.write("docs/")                    rewrites what stands between the markers of Markdown files
    diagram.check("docs/")                    says what has drifted
    diagram.compare("docs/")                  pictures drawn by hand, against the machine, edge by edge

A diagram contains only states, events and edges that are in the table.
"""

from mcpconn.diagram.drawing import svg
from mcpconn.diagram.markers import Drift, check, write
from mcpconn.diagram.reading import Difference, compare
from mcpconn.diagram.render import dot, markdown_table, mermaid
from mcpconn.diagram.scxml import scxml

__all__ = [
    "Difference",
    "Drift",
    "check",
    "compare",
    "dot",
    "markdown_table",
    "mermaid",
    "scxml",
    "svg",
    "write",
]
