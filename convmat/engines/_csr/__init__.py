"""The engine `csr`: products of the stored matrix."""
