/** Results that are objects, as text. */

import { stringify } from 'yaml'

export const FORMATS = ['json', 'yaml'] as const
export type Format = (typeof FORMATS)[number]

/** @returns the object as a text with a line break at its end */
export function render(value: unknown, format: Format): string {
  return format === 'json'
    ? `${JSON.stringify(value, null, 2)}\n`
    : stringify(value, { lineWidth: 0, aliasDuplicateObjects: false })
}
