/** The addon, in a file of its own so that it can be loaded when it is needed, and as CommonJS: Node's loader of ES modules takes longer than the addon. */

export { AsyncEntry } from '@napi-rs/keyring'
