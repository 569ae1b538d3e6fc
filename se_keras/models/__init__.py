"""The networks: one file per skeleton with its table of variants, and the registry that joins the tables."""
