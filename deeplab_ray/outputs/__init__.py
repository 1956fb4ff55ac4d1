"""What batch prediction writes: files that others read, and the journal of what is done."""
