"""The page and the HTTP service (`ddl-d2 serve`); needs the extra `serve`, and no other room imports it."""
