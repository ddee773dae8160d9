"""Downloads of open data sets, resumed and checked."""
