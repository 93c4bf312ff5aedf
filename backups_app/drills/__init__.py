"""Questions to ask of a restored database in a drill. Sites write their own; these are to start with."""
