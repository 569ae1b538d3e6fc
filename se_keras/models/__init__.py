"""The networks: a skeleton and a table of variants a file, and the registry that joins the tables."""
