import type { Stamp } from '../key_settings.ts'

/** @returns the field in which the storage belongs to something else, or null. A storage that is nobody's becomes ours. */
export function compareStamp(sql: SqlStorage, stamp: Stamp): keyof Stamp | null {
  sql.exec('create table if not exists stamp (field text primary key, value text not null)')
  for (const [field, value] of Object.entries(stamp) as [keyof Stamp, string][]) {
    sql.exec('insert into stamp values (?, ?) on conflict do nothing', field, value)
    if (sql.exec('select value from stamp where field = ?', field).one().value !== value) return field
  }
  return null
}
