"""The candidate views of an audit: ``candidate_views`` lists them, ``view_selection`` compares them."""
