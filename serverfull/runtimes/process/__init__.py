"""Functions in processes of their own: how these are started, held, fed and listened to."""
