"""Where live events are kept: embedded (SQLite) or shared by several replicas (Redis)."""
