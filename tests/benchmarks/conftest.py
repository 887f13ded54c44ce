"""Benchmarks are programs to start by hand; no test run collects, let alone times, them."""

collect_ignore_glob = ["*"]
