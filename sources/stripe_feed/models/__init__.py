"""The data models: a dbt project, and what builds, tests and explains it."""
