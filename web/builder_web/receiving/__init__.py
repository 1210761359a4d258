"""An upload as it arrives: checked and hashed while it is written, then put into its place and recorded."""
