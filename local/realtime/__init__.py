"""The Realtime server of the local stack: Supabase's protocol over one Postgres, for one project."""
