"""The only callers of git: processes, repositories, the filter protocol, drivers, installation."""
