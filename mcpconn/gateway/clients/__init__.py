"""The gateway's clients: who sends a request (`downstream`), and sessions that outlive the process (`sessions`).

A client can be asked something during its call (`parked`), and gets its answer after its stream was cut (`events`).
"""
