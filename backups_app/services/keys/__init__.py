"""Care of encryption keys: evidence, proofs, making, re-encrypting, and what to print for bad days."""
