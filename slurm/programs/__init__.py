"""What can be launched, one file each."""
