-- What a single value may be: a domain each, for every table that has such a column. A domain is asked when its value is written. A CHECK of the
-- table is read from the catalogue, planned and asked again at every later write of the row: for 23 of them that was a fifth of what a job's move
-- cost. Over REST, and in the types that are generated from the schema, a domain looks like the type beneath it.

create domain sidejob.job_type as text  -- a count in a regular expression, {0,99}, would cost more than all the rest
  constraint type_is_a_short_name check (char_length(value) <= 100 and value ~ '^[A-Za-z0-9][A-Za-z0-9._:-]*$');
create domain sidejob.executor_id as text
  constraint executor_id_is_a_short_name check (char_length(value) <= 100 and value ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$');
create domain sidejob.agent_id as text
  constraint agent_id_is_a_short_name check (char_length(value) <= 100 and value ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$');
create domain sidejob.idempotency_key as text
  constraint idempotency_key_is_1_to_200_characters check (char_length(value) between 1 and 200);
create domain sidejob.trace_id as text
  constraint trace_id_is_32_hex_digits check (char_length(value) = 32 and value ~ '^[0-9a-f]*$');

create domain sidejob.priority as smallint
  constraint priority_is_0_to_9 check (value between 0 and 9);
create domain sidejob.max_attempts as int
  constraint max_attempts_is_1_to_25 check (value between 1 and 25);
create domain sidejob.backoff_seconds as int
  constraint backoff_seconds_is_0_to_86400 check (value between 0 and 86400);
create domain sidejob.run_time as timestamptz
  constraint next_run_at_is_before_2100 check (value < '2100-01-01 00:00:00+00');

create domain sidejob.payload as jsonb
  constraint payload_is_an_object check (jsonb_typeof(value) = 'object')
  constraint payload_is_at_most_256_kib check (octet_length(value::text) <= 262144);
create domain sidejob.result as jsonb
  constraint result_is_at_most_1_mib check (octet_length(value::text) <= 1048576);
create domain sidejob.error as jsonb
  constraint error_is_at_most_64_kib check (octet_length(value::text) <= 65536);
create domain sidejob.progress as jsonb
  constraint progress_is_at_most_16_kib check (octet_length(value::text) <= 16384);
create domain sidejob.checkpoint as jsonb
  constraint checkpoint_is_at_most_256_kib check (octet_length(value::text) <= 262144);
