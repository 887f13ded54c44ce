"""The command line: one verb a module, with explicit arguments and a returned value; only ``cli`` parses and prints."""
