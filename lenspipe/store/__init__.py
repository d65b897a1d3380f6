"""Object stores by fsspec URL: what is read, listed, committed and locked there, and folders that stand for one."""
