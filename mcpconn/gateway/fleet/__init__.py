"""Several processes that are one gateway: each serves any client, and what has one place has one owner.

A legacy session and its upstream sessions belong to one replica (`ownership`), as long as that holds its lease
(`membership`). The others forward every request of it (`routing`, `forwarding`) to a listener of its own (`listener`),
signed (`signing`). A successor ends what its predecessor had open, and never uses it (`handover`, `guard`).
"""
