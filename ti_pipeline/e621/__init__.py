"""The site: its client, its tag catalog, records as table rows, and the content policy. No Dagster in here."""
