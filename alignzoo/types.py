"""`Item` and `Tokens` under their first address, for the tests of packages made before it moved.

`alignzoo new algorithm` used to write a test that imports from here; `alignzoo` has both now.
"""

from alignzoo.contract.types import Item, Tokens

__all__ = ["Item", "Tokens"]
