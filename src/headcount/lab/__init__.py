"""Tools that test and measure headcount; the product never imports them."""
