"""Team Insight's backend: projects of a Backlog space, kept in PostgreSQL."""
