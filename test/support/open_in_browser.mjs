// node open_in_browser.mjs PORT NOTES URL: opens the URL in the browser of a test, and notes what it was started with.
import { appendFileSync } from 'node:fs'

const [port, notes, url] = process.argv.slice(2)
appendFileSync(notes, `${JSON.stringify({ argv: process.argv, env: process.env })}\n`)
await fetch(`http://127.0.0.1:${port}/?url=${encodeURIComponent(url)}`)
