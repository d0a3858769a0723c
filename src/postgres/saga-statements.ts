/** A time as milliseconds since 1970, which all drivers give as a number. */
const ms = (time: string) => `(extract(epoch from ${time}) * 1000)::float8`;

const COLUMNS = `s.saga_id, s.name, s.version::float8, s.status, s.reason,
  ${ms('s.created_at')} as created_at, ${ms('s.updated_at')} as updated_at, ${ms('s.due_at')} as due_at`;

export const CREATE = 'select holdfast.create_sagas($1::text::json) as results';
export const WRITE = 'select holdfast.write_sagas($1::text::json) as results';
export const SEND = 'select holdfast.send_saga_input($1, $2, $3, $4, $5, $6) as result';

/** Reads sagas, one moment of each. */
export const READ = `
  select ${COLUMNS}, s.input, s.context, s.length, s.inputs as input_count,
    (select '[' || string_agg('[' || ${ms('e.at')} || ',' || e.entries || ']', ',' order by e.number) || ']'
     from holdfast.saga_entries e where e.saga_id = s.saga_id) as journal,
    (select '[' || string_agg(i.input, ',' order by i.number) || ']'
     from holdfast.saga_inputs i where i.saga_id = s.saga_id) as input_list
  from holdfast.sagas s where s.saga_id = any($1::text[])`;

export const READ_INPUTS = `
  select input from holdfast.saga_inputs where saga_id = $1 and number >= $2 order by number`;

export const SUMMARIES = `select ${COLUMNS} from holdfast.sagas s where s.saga_id = any($1::text[])`;

export const READ_EXISTING = `select ${COLUMNS}, s.input from holdfast.sagas s where s.saga_id = $1`;

/** The rows of one page of a list. */
export const PAGE = 200;

/**
 * A page of each status and the first of all of these: so the index serves any list. The parameters are
 * the statuses, created_at and saga_id of the last one before the page, name and dueFor.
 */
export const LIST = `
  select s.* from unnest($1::text[]) as listed (status) cross join lateral (
    select ${COLUMNS}, s.input from holdfast.sagas s
    where s.status = listed.status
      and (s.created_at, s.saga_id) > ('epoch'::timestamptz + $2::float8 * interval '1 millisecond', $3::text)
      and ($4::text is null or s.name = $4)
      and ($5::float8 is null or s.due_at <= now() - $5::float8 * interval '1 millisecond')
    order by s.created_at, s.saga_id limit ${PAGE}
  ) as s
  order by s.created_at, s.saga_id limit ${PAGE}`;

/**
 * Claims what is due of each definition, without a look at sagas of definitions that nobody runs any
 * more. Rows that another process has locked are its own to claim or write.
 */
export const CLAIM = `
  with moment as materialized (select date_trunc('milliseconds', clock_timestamp()) as now),
  due as materialized (
    select s.* from unnest($1::text[], $2::bigint[]) as given (name, version) cross join lateral (
      select s.saga_id, s.owned, s.due_at from holdfast.sagas s
      where s.name = given.name and s.version = given.version and s.due_at <= (select now from moment)
      order by s.due_at limit $3 for update skip locked
    ) as s
    order by s.due_at limit $3
  )
  update holdfast.sagas s set token = s.token + 1, owned = true,
    due_at = moment.now + $4::float8 * interval '1 millisecond' * 4 / 3
  from due, moment where s.saga_id = due.saga_id
  returning s.saga_id, s.token, due.owned as takeover, ${ms('due.due_at')} as due_at, ${ms('moment.now')} as now`;

/**
 * Prolongs leases, given as a list in JSON. One that is long enough stays, and with it the index. The
 * `lock_timeout` is set before the first row is locked.
 */
export const RENEW = `
  with held as materialized (
    select s.saga_id, l.lease * interval '1 millisecond' as lease
    from (select set_config('lock_timeout', '2s', true)) as bounded,
      json_to_recordset($1::text::json) as l ("sagaId" text, token int, lease float8)
    join holdfast.sagas s on s.saga_id = l."sagaId" and s.token = l.token and s.owned
    order by s.saga_id for update of s
  )
  update holdfast.sagas s set due_at = case
    when s.due_at >= clock_timestamp() + held.lease then s.due_at
    else date_trunc('milliseconds', clock_timestamp()) + held.lease * 4 / 3
  end
  from held where s.saga_id = held.saga_id
  returning s.saga_id, s.token, s.inputs`;

/**
 * Releases sagas that were claimed and could not be read, given as a list in JSON: whoever claims one next
 * takes it over only if this owner did. They are due after all that is due by now, and so hold up no other.
 */
export const RELEASE = `
  with unread as materialized (
    select s.saga_id, c.takeover
    from (select set_config('lock_timeout', '2s', true)) as bounded,
      json_to_recordset($1::text::json) as c (saga_id text, token int, takeover boolean)
    join holdfast.sagas s on s.saga_id = c.saga_id and s.token = c.token and s.owned
    order by s.saga_id for update of s
  )
  update holdfast.sagas s set owned = unread.takeover, due_at = date_trunc('milliseconds', clock_timestamp())
  from unread where s.saga_id = unread.saga_id`;

/** Makes a saga stuck that its owner cannot read. */
export const STICK = `
  update holdfast.sagas set status = 'stuck', reason = $3, step = null, cancellable = false, owned = false,
    due_at = null, updated_at = date_trunc('milliseconds', clock_timestamp())
  where saga_id = $1 and token = $2`;

/** An ended saga was updated for the last time when it ended, and was created before that. */
export const REMOVE = `
  with gone as (
    delete from holdfast.sagas where saga_id in (
      select s.saga_id from unnest(array['completed', 'compensated']) as ended (status) cross join lateral (
        select saga_id from holdfast.sagas
        where status = ended.status and created_at <= now() - $1::float8 * interval '1 millisecond'
          and updated_at <= now() - $1::float8 * interval '1 millisecond'
        order by created_at limit $2 for update skip locked
      ) as s
      limit $2
    ) returning saga_id
  ),
  entries as (delete from holdfast.saga_entries e using gone where e.saga_id = gone.saga_id),
  inputs as (delete from holdfast.saga_inputs i using gone where i.saga_id = gone.saga_id)
  select count(*)::int as removed from gone`;

export const HAS_EVENTS = 'select from holdfast.saga_events limit 1';

/** The events of one saga have their ids in the order of its transactions, which its row keeps apart. */
export const READ_EVENTS = `
  select e.id::text, e.saga_id, e.event from holdfast.saga_events e
  where (select pg_try_advisory_xact_lock($1, 0)) order by e.id limit $2`;

export const FORGET_EVENTS = 'delete from holdfast.saga_events where id = any($1::bigint[])';
