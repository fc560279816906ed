"""What happened: the log's schema, its readers, rejected rows, time splits, and the compiled dataset."""
