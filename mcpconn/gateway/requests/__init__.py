"""A client's request on its way to a server and back (`forward`), and calls that run at most once (`ledger`)."""
