"""What the gateway seals with: see `mcpconn.seal`, which token storages without a gateway use, too."""

from mcpconn.seal import KeyRing as KeyRing
from mcpconn.seal import NotSealedHere as NotSealedHere
from mcpconn.seal import Sealer as Sealer
from mcpconn.seal import given_ring as given_ring
from mcpconn.seal import kept_ring as kept_ring
