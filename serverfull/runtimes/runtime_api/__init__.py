"""The Lambda Runtime API (2018-06-01) that every sandbox has, whatever it is made of: its states, HTTP and messages."""
