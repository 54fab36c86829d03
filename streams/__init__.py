"""Room 1, heard: records become rolling p95, health and demand."""
