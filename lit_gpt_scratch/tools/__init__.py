"""What can be done with a checkpoint, one file a tool."""
