"""Charts, pictures of films, HTML pages: what reports, site and scoring draw with."""
