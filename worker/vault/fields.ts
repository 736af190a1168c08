/**
 * Parameters as Vault's API takes them: each has a type, and whatever can be read as that type is taken for it. A list is an
 * array or a text with commas, a duration seconds or a text such as `1h`.
 */

import { VaultError } from './vault_error.ts'

export interface FieldTypes {
  text: string
  bool: boolean
  int: number
  /** Whole seconds. */
  duration: number
  list: readonly string[]
}

export type FieldSchema = Readonly<Record<string, keyof FieldTypes>>

/** What was given, by name. What was not is not there. */
export type Fields<Schema extends FieldSchema> = { readonly [Name in keyof Schema]?: FieldTypes[Schema[Name]] }

export interface ReadFields<Schema extends FieldSchema> {
  readonly fields: Fields<Schema>
  /** Names that mean nothing here, sorted. */
  readonly ignored: readonly string[]
}

/**
 * @param prefix of the message; Vault has none where it looks first whether the object exists
 * @throws VaultError 400, which names the parameter, and repeats of it what is too short for a secret
 */
export function readFields<Schema extends FieldSchema>(
  body: Readonly<Record<string, unknown>>,
  schema: Schema,
  prefix = 'Field validation failed: ',
): ReadFields<Schema> {
  const fields: Record<string, unknown> = {}
  const ignored: string[] = []
  for (const [name, value] of Object.entries(body)) {
    const type = Object.hasOwn(schema, name) ? schema[name] : undefined
    if (type === undefined) ignored.push(name)
    else if (value !== null)
      try {
        fields[name] = READERS[type](value)
      } catch (error) {
        if (!(error instanceof FieldError)) throw error
        throw new VaultError(400, `${prefix}error converting input for field "${name}": ${error.message}`)
      }
  }
  return { fields: fields as Fields<Schema>, ignored: ignored.sort() }
}

/** @returns what to warn of, as Vault does */
export function ignoredWarning(ignored: readonly string[]): string[] {
  return ignored.length > 0 ? [`Endpoint ignored these unrecognized parameters: [${ignored.join(' ')}]`] : []
}

class FieldError extends Error {
  override readonly name = 'FieldError'
}

const READERS: { readonly [Type in keyof FieldTypes]: (value: unknown) => FieldTypes[Type] } = {
  text: readText,
  bool: readBool,
  int: readInt,
  duration: readDuration,
  list: readList,
}

function readText(value: unknown): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number') return String(value)
  if (typeof value === 'boolean') return value ? '1' : '0'
  throw new FieldError("expected type 'string'")
}

/** The texts that Go has for them. */
const BOOLS = new Map([
  ...['1', 't', 'T', 'TRUE', 'true', 'True'].map((text) => [text, true] as const),
  ...['', '0', 'f', 'F', 'FALSE', 'false', 'False'].map((text) => [text, false] as const),
])

function readBool(value: unknown): boolean {
  if (typeof value === 'boolean') return value
  if (typeof value === 'number') return value !== 0
  if (typeof value !== 'string') throw new FieldError("expected type 'bool'")
  const bool = BOOLS.get(value)
  if (bool === undefined)
    throw new FieldError(`cannot parse '' as bool: strconv.ParseBool: parsing ${shown(value)}: invalid syntax`)
  return bool
}

function readInt(value: unknown): number {
  if (typeof value === 'boolean') return value ? 1 : 0
  if (value === '') return 0
  const int = typeof value === 'string' && /^[+-]?\d{1,15}$/.test(value) ? Number(value) : value
  if (Number.isSafeInteger(int)) return int as number
  if (typeof value !== 'string' && typeof value !== 'number') throw new FieldError("expected type 'int'")
  throw new FieldError(`cannot parse '' as int: strconv.ParseInt: parsing ${shown(String(value))}: invalid syntax`)
}

const UNIT_SECONDS = { ns: 1e-9, us: 1e-6, µs: 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600 }
const PART = /(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g
/** In Go a duration is nanoseconds in 64 bits. */
const MAX_SECONDS = 9_223_372_036

/** @see [Duration format strings](https://developer.hashicorp.com/vault/docs/concepts/duration-format) */
function readDuration(value: unknown): number {
  if (typeof value !== 'string' && typeof value !== 'number')
    throw new FieldError('could not parse duration from input')
  // A number is a text to it, too: 1.5 lacks a unit.
  const whole = Math.trunc(parseDuration(String(value)))
  if (Math.abs(whole) > MAX_SECONDS)
    throw new FieldError('multiplication of durations resulted in overflow, one operand may be too large')
  if (whole < 0) throw new FieldError(`cannot provide negative value '${whole}'`)
  return whole
}

function parseDuration(text: string): number {
  if (text === '') return 0
  if (/^[+-]?\d{1,15}$/.test(text)) return Number(text)
  if (/^[+-]?\d{1,15}d$/.test(text)) return Number(text.slice(0, -1)) * 86_400
  const [, sign, rest = ''] = /^([+-]?)(.{1,64})$/.exec(text) ?? []
  let end = 0
  let seconds = 0
  for (const part of rest.matchAll(PART)) {
    if (part.index !== end) break
    end += part[0].length
    seconds += Number(part[1]) * UNIT_SECONDS[part[2] as keyof typeof UNIT_SECONDS]
  }
  const [number, unit = ''] = /^(?:\d+\.?\d*|\.\d+)([^\d.]*)/.exec(rest.slice(end)) ?? []
  if (number !== undefined && unit === '') throw new FieldError(`time: missing unit in duration ${shown(text)}`)
  if (number !== undefined) throw new FieldError(`time: unknown unit ${shown(unit)} in duration ${shown(text)}`)
  if (end === 0 || end !== rest.length) throw new FieldError(`time: invalid duration ${shown(text)}`)
  return sign === '-' ? -seconds : seconds
}

/** What is short can be a mistake and no secret. */
function shown(text: string): string {
  return text.length <= 16 ? JSON.stringify(text) : '"…"'
}

function readList(value: unknown): readonly string[] {
  if (value === '') return []
  const values = Array.isArray(value) ? value.map(readText) : readText(value).split(',')
  return values.map((text) => text.trim())
}
