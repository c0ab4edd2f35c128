"""Several processes that act as one gateway: each serves any client, and all state has exactly one owner.

A legacy session and its upstream sessions belong to one replica (`ownership`) while it holds its lease (`membership`).
The others forward the session's requests (`routing`, `forwarding`), signed (`signing`), to that replica's separate
listener (`listener`). A successor ends its predecessor's upstream sessions, and never uses them (`handover`, `guard`).
"""
