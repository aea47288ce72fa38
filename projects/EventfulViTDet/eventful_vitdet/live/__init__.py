"""A local web page that shows a detector at work and lets its viewers steer it. Needs the extra "live"."""
